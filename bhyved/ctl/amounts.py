"""Durations, sizes, counts and times for people, as cheaply as a table of 500 guests wants them."""

from __future__ import annotations

#: Unit, the next smaller one, and how many of that it has.
_UNITS = ((86_400, "d", 3600, "h", 24), (3600, "h", 60, "m", 60), (60, "m", 1, "s", 60))


def span(seconds: float) -> str:
    """What `core.units.span` says, without the imports of `core.units`: the larger units, tenths below ten seconds."""
    if seconds < 10:
        tenths = round(max(0.0, round(seconds, 1)) * 10)
        if tenths % 10 == 0:
            return f"{tenths // 10}s"
        return f"{tenths / 10}s" if tenths > 10 else f"{tenths}00ms"
    whole = round(seconds)
    for unit_s, unit, smaller_s, smaller, count in _UNITS:
        if whole >= unit_s:
            many, few = divmod(whole // smaller_s, count)
            return f"{many}{unit}{few}{smaller}" if few else f"{many}{unit}"
    return f"{whole}s"


def size(count: int) -> str:
    """Bytes as one reads them, never more than there are: from a megabyte on what `core.room.amount` says, without its imports."""
    for shift, unit in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if count >= 1 << shift:
            tenths = count * 10 >> shift
            return f"{tenths // 10}{unit}" if tenths % 10 == 0 or tenths >= 1000 else f"{tenths / 10}{unit}"
    return f"{count}B"


def counted(count: int, thing: str) -> str:
    """`1 guest`, `2 guests`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def moment(text: str) -> str:
    """An RFC 3339 time of the wire, to the second and without its zone, which is always UTC."""
    return text[:19].replace("T", " ")


def one_line(text: str) -> str:
    """Words of guests and of others, harmless for a terminal, on one line."""
    if text.isprintable():
        return text
    from bhyved.core.ansi import plain

    return " ".join(plain(text).split())
