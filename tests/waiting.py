"""Waiting for what sends no event."""

import time
from collections.abc import Callable

PATIENCE_S = 30.0  # tests run beside other tests
_LOOK_S = 0.005


def until(claim: Callable[[], object], what: str = "what was waited for has not come to pass", *, limit_s: float = PATIENCE_S) -> None:
    """Look again and again at a condition of the system."""
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, f"not within {limit_s:g} s: {what}"
        time.sleep(_LOOK_S)
