"""The bootrom of a guest and its variables: which files, by release, and whether bhyve can use them (contract 1.4, 2.4, 2.5)."""

from __future__ import annotations

import os

from bhyved.lab.freebsd import BHYVE_ERROR, Refusal, Settings, errx, strerror, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.tree import Tree

_PAGE_BYTES = 4096
_BOTH_BYTES = 16 << 20  # ROM and variables together


def files(tree: Tree, settings: Settings) -> tuple[str | None, str | None]:
    """The paths of bootrom and variables, or None."""
    return _value(tree, settings, "bootrom"), _value(tree, settings, "bootvars")


def _value(tree: Tree, settings: Settings, name: str) -> str | None:
    if settings.is_14:
        return tree.get(f"lpc.{name}")
    value = tree.get(name)
    if value is None:
        value = tree.get(f"lpc.{name}")
        if value is not None and settings.release == "main":
            warn(f"bhyve: lpc.{name} is deprecated, use '-o {name}' instead")
    return value


def load(bootrom: str, variables: str | None, settings: Settings) -> None:
    """Look at them as bhyve would. Raises Refusal."""
    if settings.is_amd64 and not settings.unrestricted_guest:
        raise errx(BHYVE_ERROR, f"ROM boot failed: unrestricted guest capability not available: {strerror(45)}")
    try:
        size = _size(bootrom, os.O_RDONLY)
    except OSError as error:
        if not settings.is_amd64:
            raise errx(1, f"open({bootrom}): {strerror(error.errno)}") from None  # contract 1.7.2
        raise Refusal(BHYVE_ERROR, f'Error opening bootrom "{bootrom}": {strerror(error.errno)}') from None
    if size % _PAGE_BYTES:
        raise Refusal(BHYVE_ERROR, f"ROM size {size} is not a multiple of the page size")
    if variables is None:
        return
    try:
        kept = _size(variables, os.O_RDWR)
    except OSError as error:
        raise Refusal(BHYVE_ERROR, f'Error opening bootrom variable file "{variables}": {strerror(error.errno)}') from None
    if kept < _PAGE_BYTES or kept % _PAGE_BYTES or size + kept > _BOTH_BYTES:
        raise Refusal(BHYVE_ERROR, f"Invalid bootrom variable size {kept}")


def _size(path: str, how: int) -> int:
    fd = os.open(path, how)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
