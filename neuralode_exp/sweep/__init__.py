"""Grids and searches: their cells, how these are launched and interrupted, and the final table."""

STUDY = "study.journal"  # file in the folder of a search
