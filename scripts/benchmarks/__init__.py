"""The tables of scripts/benchmark.py, and their common parts."""
