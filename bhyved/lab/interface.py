"""A network interface of the lab, as its file has it: `lab.netif` reads and writes those, `lab.links` makes real ones after them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MTU = 1500


class Interface:
    """One interface, as its file says."""

    def __init__(self, kind: str, name: str, said: dict[str, Any]) -> None:
        self.kind = kind
        self.name = name
        self.description: str = said.get("description", "")
        self.groups: list[str] = said.get("groups", [])
        self.bridge: str = said.get("bridge", "")  # the one it is a member of
        self.mtu: int = said.get("mtu", _MTU)
        self.up: bool = said.get("up", False)
        self.addresses: list[str] = said.get("addresses", [])
        self.ether: str = said.get("ether", "")
        self.opened_by: int = said.get("opened_by", 0)
