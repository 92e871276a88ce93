"""`python -m sskd`, and `torchrun ... -m sskd`: the same as the command `sskd`."""

import sys

from sskd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
