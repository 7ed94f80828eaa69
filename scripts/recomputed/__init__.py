"""The other means of `recompute.py`, a module for each task. Each returns (tag, recorded, found, bounds...)."""
