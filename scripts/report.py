"""`neuralode report` of a checkout: `python scripts/report.py --help` says what it takes."""

import sys

from neuralode_exp.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
