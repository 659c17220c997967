"""One line of JSON in, one out: the C halves of `json`, without its Python half.

`import json` compiles patterns and costs as much as the interpreter's own start, which a client that lives for 20 ms would feel.
Whatever the interpreter lacks of this is taken from `json` itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class _Settings:
    """What the scanner asks of its decoder; the defaults of `json.loads`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own


def _find() -> tuple[Callable[[str, int], tuple[object, int]], Callable[[object], str]]:
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner

        encode = make_encoder(None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False)
        return make_scanner(_Settings), lambda value: "".join(encode(value, 0))  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):
        import json

        return json.JSONDecoder().raw_decode, json.dumps


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is nothing for JSON")


_scan, dump = _find()


def load(line: bytes) -> object:
    """The value of a line. Raises ValueError."""
    text = line.decode().strip()
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON") from None
    if end != len(text):
        raise ValueError("more than one value on a line")
    return value
