"""The other means of `recompute.py`, a module for each task. They give (tag, recorded, found, bounds...)."""
