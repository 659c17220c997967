"""zfs(8): where the disks of a guest are, and their snapshots. Satisfies `daemon.ports.Datasets`; contract 5.7.

Nothing here is recursive over datasets: no command names anything but what it is asked for.
"""

import os
from collections.abc import Mapping, Sequence

from bhyved.core.errors import HostError
from bhyved.core.snapshots import COLUMNS, COUNTED, Dataset, Seen, by_pool, counted, parse, volume_of
from bhyved.host.hostlock import make_directory
from bhyved.host.liveness import Liveness
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import ToolError, Tools
from bhyved.threads import in_thread

_ASK_S = 30.0  # a host with ten thousand snapshots
_ACT_S = 60.0  # a transaction group of a busy pool takes seconds
_KEEP_BYTES = 16 << 20  # of a listing


class HostDatasets:
    """See `daemon.ports.Datasets`."""

    def __init__(self, tools: Tools, dev: str, run: str) -> None:
        self._tools, self._dev, self._run = tools, dev, run

    async def locate(self, paths: Sequence[str]) -> tuple[Dataset, ...]:
        """See `daemon.ports.Datasets.locate`."""
        found: dict[str, Dataset] = {}
        for path in paths:
            volume = volume_of(path, self._dev) or await in_thread(self._behind_links, path, abandon_on_cancel=True)
            name, mountpoint = (volume, "") if volume else await self._file_system(path)
            disks = found[name].disks if name in found else ()
            found[name] = Dataset(name=name, mountpoint=mountpoint, disks=(*disks, path))
        return tuple(found.values())

    def _behind_links(self, path: str) -> str:
        """The volume of a device that links lead to, as other tools make them; '': it is no volume's. Blocks where a mount is dead."""
        for _ in range(8):  # a chain of links that is longer is a circle
            volume = volume_of(path, self._dev)
            if volume or not os.path.islink(path):
                return volume
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        return ""

    async def _file_system(self, path: str) -> tuple[str, str]:
        try:
            result = await run_tool(self._tools, ("zfs", "list", "-H", "-o", "name,mountpoint", path), limit_s=_ASK_S)
        except ToolError as error:
            raise HostError(f"disk {path} is not on ZFS: {error}", fatal=True) from None
        name, _, mountpoint = result.text.strip().partition("\t")
        return name, mountpoint

    async def look(self, datasets: Sequence[Dataset]) -> list[Seen]:
        """See `daemon.ports.Datasets.look`."""
        names = [dataset.name for dataset in datasets]
        # -d 1: of these datasets alone, not of what is below them.
        argv = ("zfs", "list", "-Hp", "-d", "1", "-t", "snapshot,bookmark", "-o", ",".join(COLUMNS), *names)
        return parse((await run_tool(self._tools, argv, limit_s=_ASK_S, keep=_KEEP_BYTES)).text)

    async def count(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """See `daemon.ports.Datasets.count`. Datasets that are not there cost zfs(8) its status, not the others."""
        argv = ("zfs", "list", "-Hp", "-d", "1", "-t", "snapshot", "-o", ",".join(COUNTED), *names)
        return counted((await run_tool(self._tools, argv, limit_s=_ASK_S, ok=(0, 1), keep=_KEEP_BYTES)).text)

    async def snapshot(self, datasets: Sequence[Dataset], name: str, properties: Mapping[str, str], *, limit_s: float) -> None:
        """See `daemon.ports.Datasets.snapshot`. One command, and so one moment, a pool (contract 5.7)."""
        options = [word for key, value in properties.items() for word in ("-o", f"{key}={value}")]
        made: list[str] = []
        for pool in by_pool(datasets):
            wanted = [f"{dataset.name}@{name}" for dataset in pool]
            try:
                await run_tool(self._tools, ("zfs", "snapshot", *options, *wanted), limit_s=limit_s)
            except HostError as error:
                # One that was killed may have done it all the same; one that said no has not.
                await self._undo([*made, *([] if isinstance(error, ToolError) else wanted)])
                raise
            made += wanted

    async def _undo(self, made: Sequence[str]) -> None:
        for full in made:
            await run_tool(self._tools, ("zfs", "destroy", full), limit_s=_ACT_S, ok=None)

    async def destroy(self, full: str) -> None:
        """See `daemon.ports.Datasets.destroy`."""
        assert "@" in full, f"{full} is no snapshot"
        await run_tool(self._tools, ("zfs", "destroy", full), limit_s=_ACT_S)

    async def roll_back(self, vm: str, full: str, *, destroy_newer: bool) -> None:
        """See `daemon.ports.Datasets.roll_back`. The command holds the guest's FIFO: whoever starts the guest waits for its end."""
        directory = f"{self._run}/vm/{vm}"
        make_directory(directory, 0o700)
        alive = Liveness(f"{directory}/alive").open_writer()
        try:
            argv = ("zfs", "rollback", *(["-r"] if destroy_newer else []), full)
            await run_tool(self._tools, argv, limit_s=_ACT_S, pass_fd=alive)
        finally:
            os.close(alive)
