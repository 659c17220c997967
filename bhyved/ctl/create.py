"""`vmctl create NAME …`: a new guest's file, and its disk. Needs no daemon, and changes none: `vmctl reload` does.

The order is: judge the file together with all others, make the disk, write the file. So a refused guest leaves nothing behind, and a
guest whose file is there has its disk.
"""

from __future__ import annotations

import os

from bhyved.core.errors import in_words
from bhyved.ctl.arguments import Asked
from bhyved.ctl.asking import print_json
from bhyved.ctl.connection import FAILED, OK, USAGE, Failure
from bhyved.ctl.image import Image
from bhyved.ctl.newguest import Files, is_there, toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bhyved.core.devices import Disk
    from bhyved.core.spec import Paths

ZFS_LIMIT_S = 60.0  # a busy pool takes its time for a transaction
ZVOL_LIMIT_S = 10.0  # the device comes a moment after the command has ended (contract 5.7)
_LOOK_S = 0.02


def create(asked: Asked) -> int:
    name, path = asked.names[0], asked.text("image")
    image = Image(path) if path else None
    files = Files(asked)
    guest = files.place(name)
    table = _table(asked, name, files.paths)
    if image is not None and "create" not in table.get("disk", [{}])[0]:
        raise Failure(USAGE, "create: --image needs a disk that is made for it: --disk 20G, or --disk /PATH=20G")
    text = toml(table)
    spec = guest.judged(text)
    if image is not None:
        _check_fits(image, spec.disk[0])
    made = [_made(disk, files.paths) for disk in spec.disk if disk.create is not None]
    if image is not None:
        _written(image, made[0])
    guest.write(text, otherwise=f"; made and kept: {', '.join(made)}" if made else "")
    return _told(asked, name, guest.file, made, has_media=any(drive.when == "install" for drive in spec.cdrom))


def _told(asked: Asked, name: str, file: str, made: list[str], *, has_media: bool) -> int:
    following = ["vmctl reload", f"vmctl start {name} --install" if has_media else f"vmctl start {name}"]
    if asked.has("json"):
        print_json({"version": 1, "vm": name, "file": file, "made": made, "next": following})
        return OK
    for path in (*made, file):
        print(f"{path}: made")
    print("next: " + "; ".join(following) + ("; when it is installed, autostart = true in its file" if has_media else ""))
    return OK


def _table(asked: Asked, name: str, paths: Paths) -> dict[str, Any]:
    """What the options say; all else is the templates' and the defaults'."""
    table: dict[str, Any] = {}
    if templates := asked.text("template"):
        table["template"] = templates.split(",")
    if cpus := asked.number("cpus"):
        table["cpus"] = cpus
    if memory := asked.text("memory"):
        table["memory"] = memory
    if disk := asked.text("disk"):
        table["disk"] = [_disk(disk, name, paths) | _given(model=asked.text("disk-model"))]
    if iso := asked.text("iso"):
        table = {"autostart": False} | table  # else `vmctl reload` would start it at once, from an empty disk
        table["cdrom"] = [{"path": os.path.abspath(iso), "when": "install"}]
    if bridge := asked.text("bridge"):
        table["network"] = [{"bridge": bridge} | _given(model=asked.text("card"))]
    if cloud_init := _cloud_init(asked):
        table["cloud-init"] = cloud_init
    for option, key in (("disk-model", "disk"), ("card", "network")):
        if asked.is_given(option) and key not in table:
            raise Failure(USAGE, f"create: --{option} is of no use without {'--disk' if key == 'disk' else '--bridge'}")
    return table


def _cloud_init(asked: Asked) -> dict[str, Any]:
    table: dict[str, Any] = {}
    if user := asked.text("user"):
        table["user"] = user
    if key := asked.text("ssh-key"):
        table["ssh-keys"] = [key if " " in key else os.path.abspath(key)]
    if user_data := asked.text("user-data"):
        table["user-data"] = os.path.abspath(user_data)
    return table


def _given(**values: str | None) -> dict[str, str]:
    return {key: value for key, value in values.items() if value is not None}


def _disk(text: str, name: str, paths: Paths) -> dict[str, Any]:
    """`20G`, `/path` or `/path=20G`."""
    from bhyved.core.units import Size

    path, _, size = text.rpartition("=") if text.startswith("/") and "=" in text else (text, "", "")
    if not text.startswith("/"):
        path, size = f"{paths.db}/disk/{name}.img", text
    if not size:
        if not is_there(path, paths):
            raise Failure(FAILED, f"create: the disk {path} does not exist; with a size, --disk {path}=20G, it is made")
        return {"path": path}
    try:
        size = str(Size.parse(size))
    except ValueError as error:
        raise Failure(USAGE, f'create: --disk "{text}": {error}; or a path, or both: /dev/zvol/zroot/vm/{name}=20G') from None
    if is_there(path, paths):
        raise Failure(FAILED, f"create: the disk {path} exists already; without a size, --disk {path}, it is used as it is")
    return {"path": path, "create": {"size": size}}


def _made(disk: Disk, paths: Paths) -> str:
    """Make a disk; its path. Raises Failure."""
    from bhyved.core.errors import HostError

    assert disk.path is not None
    assert disk.create is not None
    try:
        if is_there(disk.path, paths):
            raise FileExistsError(0, "exists already")
        if disk.path.startswith(_zvols(paths)):
            _make_volume(disk.path, disk.create.size, paths, sparse=disk.create.sparse)
        else:
            _make_file(disk.path, disk.create.size, paths)
    except OSError as error:
        raise Failure(FAILED, f"the disk {disk.path} cannot be made: {in_words(error)}") from None
    except HostError as error:
        raise Failure(FAILED, f"the disk {disk.path} cannot be made: {error}") from None
    return disk.path


def _check_fits(image: Image, disk: Disk) -> None:
    assert disk.create is not None
    image.check_fits(str(disk.path), int(disk.create.size))


def _written(image: Image, disk: str) -> None:

    try:
        image.write_to(disk)
    except OSError as error:
        raise Failure(FAILED, f"the image cannot be written to {disk}: {in_words(error)}; made and kept: {disk}") from None


def _make_file(path: str, size: int, paths: Paths) -> None:
    """A sparse file: it takes what the guest writes. Raises OSError."""
    directory = os.path.dirname(path)
    if directory == f"{paths.db}/disk":
        os.makedirs(directory, 0o700, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def _make_volume(path: str, size: int, paths: Paths, *, sparse: bool) -> None:
    """`volmode=dev` keeps the host from tasting the guest's partitions (contract 5.7). Raises HostError."""
    import time

    from bhyved.core.errors import HostError
    from bhyved.host.toolbox import Tools

    dataset = path.removeprefix(_zvols(paths))
    tools = Tools(bin=tuple(map(str, paths.bin)))
    options = ("-s",) if sparse else ()
    tools.ask(("zfs", "create", *options, "-V", str(size), "-o", "volmode=dev", dataset), limit_s=ZFS_LIMIT_S)
    deadline = time.monotonic() + ZVOL_LIMIT_S
    while not is_there(path, paths):
        if time.monotonic() > deadline:
            raise HostError(f"zfs made {dataset}, but its device did not appear within {ZVOL_LIMIT_S:g} s")
        time.sleep(_LOOK_S)


def _zvols(paths: Paths) -> str:
    return f"{paths.dev}/zvol/"
