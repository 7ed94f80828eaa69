"""What a grid needs beyond Hydra: its cells, their launch whatever a launcher does, Ctrl-C, the final table."""
