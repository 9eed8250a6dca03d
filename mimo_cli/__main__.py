"""`python -m mimo_cli` is `mimo`."""

import sys

from mimo_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
