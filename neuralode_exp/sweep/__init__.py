"""What a grid needs beyond Hydra: its cells, their launch whatever a launcher does, Ctrl-C, the final table."""

STUDY = "study.journal"  # in the folder of a search
