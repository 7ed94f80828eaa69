"""`neuralode evaluate` of a checkout: `python scripts/evaluate.py --help` says what it takes."""

import sys

from neuralode_exp.commands.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
