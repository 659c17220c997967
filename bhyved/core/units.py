"""Sizes, durations and limits: parsed from what an operator writes, printed back the same way.

`dec_hook` and `enc_hook` are the only two hooks of the whole program: configuration, state files and the wire share them.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

_SIZE = re.compile(r"([0-9]+)([KMGT])", re.IGNORECASE)
_SIZE_BYTES: Final = {"T": 1 << 40, "G": 1 << 30, "M": 1 << 20, "K": 1 << 10}

_DURATION = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)(ms|[wdhms]))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[wdhms])")
_DURATION_S: Final = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST_S: Final = 10 * 366 * 86400.0  # nobody waits longer; keeps sums of times exact

_LIMIT = re.compile(r"([0-9]{1,6}) in (\S+)")


class Size(int):
    """Bytes, written `2G`, `512M`, `64K`, `1T` (powers of 1024)."""

    @classmethod
    @functools.lru_cache  # hundreds of guests have a few dozen between them, read again at each start of the daemon
    def parse(cls, text: str) -> "Size":
        match = _SIZE.fullmatch(text)
        if match is None:
            # bhyve reads a bare number as megabytes or bytes, depending on its size (contract 1.5): a suffix is never optional here.
            raise ValueError('a size is a number and K, M, G or T, for example "2G"')
        size = int(match[1]) * _SIZE_BYTES[match[2].upper()]
        if size >= 1 << 63:
            raise ValueError("a size must fit into 63 bits")
        return cls(size)

    def __str__(self) -> str:
        for suffix, unit in _SIZE_BYTES.items():
            if self >= unit and self % unit == 0:
                return f"{int(self) // unit}{suffix}"
        return str(int(self)) if self else "0K"

    def __repr__(self) -> str:
        return f"Size.parse({str(self)!r})"


class Duration(float):
    """Seconds, written `90s`, `5m`, `1h30m`, `2d`, `500ms`."""

    @classmethod
    @functools.lru_cache
    def parse(cls, text: str) -> "Duration":
        if _DURATION.fullmatch(text) is None:
            raise ValueError('a duration is a number and ms, s, m, h, d or w, for example "90s" or "1h30m"')
        seconds = sum(float(number) * _DURATION_S[unit] for number, unit in _DURATION_PART.findall(text))
        if seconds > _LONGEST_S:
            raise ValueError("a duration must be under ten years")
        return cls(seconds)

    def __str__(self) -> str:
        left_ms = round(float(self) * 1000)
        parts = []
        for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
            count, left_ms = divmod(left_ms, size_ms)
            if count:
                parts.append(f"{count}{unit}")
        whole, rest = divmod(left_ms, 1000)
        if rest and (whole or parts):
            parts.append(f"{whole}.{rest:03d}".rstrip("0") + "s")
        elif rest:
            parts.append(f"{rest}ms")
        elif whole or not parts:
            parts.append(f"{whole}s")
        return "".join(parts)

    def __repr__(self) -> str:
        return f"Duration.parse({str(self)!r})"


def span(seconds: float) -> str:
    """A duration for people: its two largest units, tenths below ten seconds."""
    if seconds < 10:
        return str(Duration(round(max(0.0, seconds), 1)))
    whole = round(seconds)
    for unit_s in (86_400, 3600, 60):
        if whole >= unit_s:
            smaller_s = {86_400: 3600, 3600: 60, 60: 1}[unit_s]
            return str(Duration(whole // smaller_s * smaller_s))
    return str(Duration(whole))


class Limit:
    """So many within a sliding window, written `5 in 5m`. A plain class: msgspec would read a struct from a table, not from text."""

    __slots__ = ("count", "window")

    def __init__(self, count: int, window: Duration) -> None:
        self.count: Final = count
        self.window: Final = window

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Limit) and (self.count, self.window) == (other.count, other.window)

    def __hash__(self) -> int:
        return hash((self.count, self.window))

    @classmethod
    @functools.lru_cache
    def parse(cls, text: str) -> "Limit":
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError('a limit is a count and a window, for example "5 in 5m"')
        window = Duration.parse(match[2])
        if window <= 0:
            raise ValueError("the window of a limit must be longer than 0s")
        return cls(int(match[1]), window)

    @property
    def window_s(self) -> float:
        return float(self.window)

    def __str__(self) -> str:
        return f"{self.count} in {self.window}"

    def __repr__(self) -> str:
        return f"Limit.parse({str(self)!r})"


class Settings(dict[str, str]):
    """A table of names and scalars, every value as bhyve's text; hashable, since nobody changes it."""

    @classmethod
    def parse(cls, table: Mapping[str, object]) -> "Settings":
        settings = cls()
        for key, value in table.items():
            match value:
                case bool():
                    settings[key] = "true" if value else "false"
                case str() | int():
                    settings[key] = str(value)
                case _:
                    raise ValueError(f"{key!r} must be a string, an integer or a boolean")
        return settings

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def dec_hook(wanted: type, value: Any) -> Any:
    """msgspec's way into our types. Raises ValueError with the sentence the operator reads."""
    parse = getattr(wanted, "parse", None)
    if parse is None:
        raise NotImplementedError(f"no way to read a {wanted.__name__}")
    if isinstance(value, wanted):
        return value
    if issubclass(wanted, dict):
        if not isinstance(value, dict):
            raise ValueError('must be a table, such as { name = "value" }')  # noqa: TRY004 - msgspec reports ValueError with its path
    elif not isinstance(value, str):
        raise ValueError(f"must be text, in quotes{_example(wanted)}")  # noqa: TRY004 - as above
    return parse(value)


def enc_hook(value: Any) -> Any:
    """msgspec's way out: what an operator would write."""
    if isinstance(value, Size | Duration | Limit):
        return str(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Settings):
        return dict(value)
    raise NotImplementedError(f"no way to write a {type(value).__name__}")


def _example(wanted: type) -> str:
    words: dict[type, str] = {Size: ', for example "2G"', Duration: ', for example "90s"', Limit: ', for example "5 in 5m"'}
    return words.get(wanted, "")
