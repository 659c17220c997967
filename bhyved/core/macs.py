"""MAC addresses for cards that have none: stable for a host and a guest, different on two hosts with the same guest names.

bhyve's own default depends on slot and name only (contract 3.2), so a guest copied to a second host would bring its address along.
"""

import hashlib
from collections.abc import Container, Mapping

from bhyved.core.slots import network_identities
from bhyved.core.spec import VmSpec
from bhyved.core.values import Mac

PREFIX = "58:9c:fc"  # FreeBSD's own, as bhyve uses it


def assign(spec: VmSpec, previous: Mapping[str, str], *, host_id: str, taken: Container[str] = ()) -> dict[str, str]:
    """An address for every card, by its identity. `taken`: addresses of other guests on this host, given or chosen."""
    macs = {name: str(card.mac) for name, card in zip(network_identities(spec), spec.network, strict=True) if card.mac is not None}
    used = set(macs.values())
    for name in network_identities(spec):
        if name in macs:
            continue
        mac = _remembered(previous.get(name, ""))
        attempt = 0
        while not mac or mac in used or mac in taken:
            mac = _derive(f"{host_id}\0{spec.name}\0{name}\0{attempt}")
            attempt += 1
        macs[name] = mac
        used.add(mac)
    return macs


def _remembered(text: str) -> str:
    """What a state file says, unless it is no address: such a file may be damaged."""
    try:
        return str(Mac.parse(text))
    except ValueError:
        return ""


def _derive(seed: str) -> str:
    tail = hashlib.blake2b(seed.encode(), digest_size=3).digest()
    return ":".join((PREFIX, *(f"{byte:02x}" for byte in tail)))
