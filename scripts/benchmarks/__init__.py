"""The tables of scripts/benchmark.py, and what they share."""
