"""The daemon: tasks that drive guests, record consoles and answer for both."""

import sys

# Where rich is installed structlog imports it, for tracebacks that we do not show: two thirds of its import time, some 0.15 s of a
# daemon's start. This package is imported before any of its modules asks for structlog.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    import structlog as structlog

    del sys.modules["rich"]
