"""`python -m bhyved`."""

import sys

from bhyved.cli.daemon import main

if __name__ == "__main__":
    sys.exit(main())
