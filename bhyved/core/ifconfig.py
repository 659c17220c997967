"""What ifconfig(8) prints, as facts. Pure; `host.tap` runs the command, `core.doctor` judges the host by it."""

import re
from dataclasses import dataclass

_HEADER = re.compile(r"^(?P<name>[^\s:]+): flags=[0-9a-fA-F]+<(?P<flags>[^>]*)>.*?(?: mtu (?P<mtu>\d+))?\s*$")
_OPENED = re.compile(r"^Opened by PID (\d+)")


@dataclass(frozen=True, kw_only=True)
class Interface:
    """One network interface."""

    name: str
    flags: frozenset[str] = frozenset()
    mtu: int = 0
    description: str = ""
    groups: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    opened_by: int | None = None

    @property
    def is_up(self) -> bool:
        return "UP" in self.flags


def parse_ifconfig(text: str) -> dict[str, Interface]:
    """The interfaces of `ifconfig -a` or `ifconfig NAME`, by name; lines that are not known are passed over."""
    found: dict[str, Interface] = {}
    header: re.Match[str] | None = None
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        is_detail = line[:1].isspace()
        if is_detail:
            lines.append(line.strip())
            continue
        if header is not None:
            found[header["name"]] = _interface(header, lines)
        header, lines = _HEADER.match(line), []
    return found


def _interface(header: re.Match[str], lines: list[str]) -> Interface:
    opened = [match for line in lines if (match := _OPENED.match(line))]
    return Interface(
        name=header["name"],
        flags=frozenset(header["flags"].split(",")) - {""},
        mtu=int(header["mtu"] or 0),
        description=next(iter(_after("description: ", lines)), ""),
        groups=tuple(group for rest in _after("groups: ", lines) for group in rest.split()),
        members=tuple(rest.split()[0] for rest in _after("member: ", lines) if rest.split()),
        addresses=tuple(rest.split()[0] for word in ("inet ", "inet6 ") for rest in _after(word, lines) if rest.split()),
        opened_by=int(opened[0][1]) if opened else None,
    )


def _after(word: str, lines: list[str]) -> list[str]:
    return [line[len(word) :] for line in lines if line.startswith(word)]
