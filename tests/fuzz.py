"""How many examples a property gets: more or fewer than the others, and all of them more under `make fuzz`."""

from hypothesis import settings

_USUAL = 100


def examples(count: int) -> settings:
    """`count` of them in `make test`, in proportion in a profile that asks for more (tests/conftest.py)."""
    return settings(max_examples=max(1, count * settings.default.max_examples // _USUAL))
