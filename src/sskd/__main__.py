"""`python -m sskd`, `torchrun ... -m sskd` and the command `sskd`, which are the same."""

import sys


def main() -> int:
    """Run the command line. What it imports takes seconds, in which it may be interrupted already."""
    try:
        from sskd.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("sskd: interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
