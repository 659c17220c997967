"""What makefs(8) makes of a directory, which becomes a guest's cloud-init seed (contract 5; usr.sbin/makefs)."""

import os

from bhyved.core.errors import HostError
from bhyved.core.seed import LABEL, makefs
from bhyved.host.durable import read_plain
from bhyved.host.seed import label_in
from bhyved.host.selftest.bench import Bench, Check, Wrong
from bhyved.host.selftest.needs import NotHere
from bhyved.host.toolbox import said_by

_NAME, _TEXT = "user-data", "#cloud-config of the selftest\n"


def _lay_out(tree: str) -> None:
    os.mkdir(tree, 0o700)
    with open(f"{tree}/{_NAME}", "w", encoding="utf-8") as file:
        file.write(_TEXT)


async def _made(bench: Bench) -> str:
    try:
        bench.tools.path("makefs")
    except HostError as error:
        raise NotHere(f"{error}: it belongs to FreeBSD's base system, and only guests with [cloud-init] need it") from None
    tree, image = f"{bench.directory}/seed", f"{bench.directory}/seed.iso"
    _lay_out(tree)
    made = await bench.tool(*makefs(image, tree))
    if made.status != 0:
        raise Wrong(f"makefs ended with {made.status}: {said_by(made)}")
    data = read_plain(image)
    label = label_in(data)
    if label.lower() != LABEL:
        raise Wrong(f"the label of what it made is {label!r}")
    for what, piece in (("the name", _NAME), ("the content", _TEXT)):
        if piece.encode() not in data:
            raise Wrong(f"{what} of a file is not in what it made")
    return f"{len(data) >> 10} KiB, the label is {label}"


CHECKS = {"cloud-init seeds": (Check("5", "makefs makes an image with the label, and names in small letters", _made),)}
