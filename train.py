"""Train, measure and record one run, or with -m a grid of them. `python train.py --help` lists what there is."""

import sys

from neuralode_exp.commands.train import command_line

if __name__ == "__main__":
    sys.exit(command_line())
