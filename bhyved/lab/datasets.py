"""The datasets of the lab's one pool, and the files that hold the bytes of its volumes. For the stand-in of zfs(8).

`DIR/lab/zfs.json` says what there is; a volume is a sparse file in DIR/lab/zvol, a snapshot of it a copy beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from bhyved.lab import state
from bhyved.lab.freebsd import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POOL = "zroot"
_DELAY_S = 0.05


class Pool:
    """All datasets: name -> its properties, among them `type`, `volsize`, `snapshots` (name -> `txg`, `creation`, `properties`)."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._path = f"{root}/lab/zfs.json"
        self.appearing: list[str] = []  # volumes that have no link yet
        self.datasets: dict[str, dict[str, Any]] = state.read(self._path) or {POOL: {"type": "filesystem", "snapshots": {}}}

    def save(self) -> None:
        state.write(self._path, self.datasets)

    def get(self, name: str) -> dict[str, Any]:
        """Raises Refusal."""
        if name not in self.datasets:
            raise Refusal(1, f"cannot open '{name}': dataset does not exist")
        return self.datasets[name]

    def snapshot(self, full: str) -> tuple[str, str]:
        """Dataset and snapshot of `dataset@snapshot`. Raises Refusal."""
        name, at, snapshot = full.partition("@")
        if not at or snapshot not in self.get(name)["snapshots"]:
            raise Refusal(1, f"cannot open '{full}': dataset does not exist")
        return name, snapshot

    def add(self, name: str, dataset: dict[str, Any]) -> None:
        """Raises Refusal when it is there or its parent is not."""
        if name in self.datasets:
            raise Refusal(1, f"cannot create '{name}': dataset already exists")
        if name.rpartition("/")[0] not in self.datasets:
            raise Refusal(1, f"cannot create '{name}': parent does not exist")
        self.datasets[name] = {"snapshots": {}, **dataset}

    def file(self, name: str, snapshot: str = "") -> str:
        """Where a volume's bytes are."""
        os.makedirs(f"{self.root}/lab/zvol", exist_ok=True)
        return f"{self.root}/lab/zvol/{name.replace('/', '%')}{'@' if snapshot else ''}{snapshot}"

    def mountpoint(self, name: str) -> str:
        """Of a file system: its own, or one below its parent's; the pool has none."""
        own = self.datasets[name].get("mountpoint")
        if own is not None or name == POOL:
            return str(own or "none")
        parent, _, leaf = name.rpartition("/")
        above = self.mountpoint(parent)
        return above if above == "none" else f"{above}/{leaf}"

    def holding(self, path: str) -> str:
        """The file system that a path is on. Raises Refusal."""
        real = os.path.realpath(path)
        if not os.path.exists(real):
            raise Refusal(1, f"cannot open '{path}': No such file or directory")
        mounted = {self.mountpoint(name): name for name in self.datasets if self.datasets[name]["type"] == "filesystem"}
        found = [point for point in mounted if real == point or real.startswith(f"{point}/")]
        if not found:
            raise Refusal(1, f"'{path}': not a ZFS filesystem")
        return mounted[max(found, key=len)]

    def clones(self, name: str, snapshot: str) -> list[str]:
        return [other for other, dataset in self.datasets.items() if dataset.get("origin") == f"{name}@{snapshot}"]

    def take(self, name: str, snapshot: str, properties: dict[str, str]) -> None:
        """A snapshot of one dataset."""
        txg = 1 + max((taken["txg"] for dataset in self.datasets.values() for taken in dataset["snapshots"].values()), default=0)
        self.datasets[name]["snapshots"][snapshot] = {"txg": txg, "creation": int(time.time()), "properties": properties}
        if self._bytes(name):
            copy(self._bytes(name), self.file(name, snapshot))

    def restore(self, name: str, snapshot: str) -> None:
        """A dataset as it was."""
        if self.datasets[name]["type"] == "volume":
            copy(self.file(name, snapshot), self.file(name))
        elif self._bytes(name):
            shutil.rmtree(self._bytes(name))
            copy(self.file(name, snapshot), self._bytes(name))

    def _bytes(self, name: str) -> str:
        """Where they are, or ''."""
        if self.datasets[name]["type"] == "volume":
            return self.file(name)
        mountpoint = self.mountpoint(name)
        return "" if mountpoint == "none" else mountpoint

    def link(self, name: str) -> str:
        return f"{self.root}/dev/zvol/{name}"

    def link_later(self) -> None:
        """Make the links of new volumes in a process that nobody waits for, and that holds nothing of its caller's."""
        if not self.appearing or os.fork():
            return
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        time.sleep(state.settings(self.root).get("zvol_delay_s", _DELAY_S))
        self.make_links(self.appearing)
        os._exit(0)

    def volumes(self) -> list[str]:
        return [name for name, dataset in self.datasets.items() if dataset["type"] == "volume"]

    def make_links(self, names: list[str]) -> None:
        """Of those that are still there."""
        for name in names:
            os.makedirs(os.path.dirname(self.link(name)), exist_ok=True)
            if os.path.exists(self.file(name)) and not os.path.lexists(self.link(name)):
                os.symlink(self.file(name), self.link(name))

    def below(self, name: str) -> list[str]:
        return [other for other in sorted(self.datasets) if other == name or other.startswith(f"{name}/")]


def copy(source: str, target: str) -> None:
    subprocess.run(["cp", "-R", "--sparse=always", "--reflink=auto", source, target], check=True)


def remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
