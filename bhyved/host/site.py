"""Where everything of this host is, and the tools to act on it: what `host.freebsd` makes once and every guest's machine uses."""

from dataclasses import dataclass

from bhyved.core.assigned import Target
from bhyved.host.crowd import Crowd
from bhyved.host.ledger import Ledgers
from bhyved.host.processes import Processes
from bhyved.host.seed import Images
from bhyved.host.tap import Taps
from bhyved.host.toolbox import Tools
from bhyved.host.vmm import Vmm


@dataclass(frozen=True, kw_only=True)
class Site:
    """The host as the configuration's `[paths]` name it."""

    run: str
    db: str
    log: str
    dev: str
    host_id: str  # what MAC addresses are derived from
    target: Target
    tools: Tools
    vmm: Vmm
    taps: Taps
    processes: Processes
    ledgers: Ledgers
    images: Images
    crowd: Crowd

    def directory(self, name: str) -> str:
        """A guest's volatile files; 0700."""
        return f"{self.run}/vm/{name}"

    def conf(self, name: str) -> str:
        """Its bhyve_config(5) file, by which its bhyve is known among processes."""
        return f"{self.directory(name)}/bhyve.conf"

    def loader_directory(self, name: str) -> str:
        """What grub-bhyve reads as nobody; 0755."""
        return f"{self.run}/loader/{name}"
