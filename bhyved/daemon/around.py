"""What every driver works with: the host's ports and the daemon's own meeting points, made once by `bhyved.app`."""

from dataclasses import dataclass

from bhyved.core.assigned import Target
from bhyved.core.policy import Rng
from bhyved.core.spec import DaemonSpec
from bhyved.daemon.board import Board
from bhyved.daemon.console import Consoles
from bhyved.daemon.events import Events
from bhyved.daemon.hooks import Hooks
from bhyved.daemon.ports import Commands, DrainFile, Host, Journal, Vault


@dataclass(kw_only=True)
class Around:
    """Shared by all drivers. Only a reload changes anything in it: `spec`."""

    host: Host
    vault: Vault
    drain_file: DrainFile
    journal: Journal
    commands: Commands
    consoles: Consoles
    board: Board
    events: Events
    hooks: Hooks
    spec: DaemonSpec
    rng: Rng
    host_id: str  # for MAC addresses
    target: Target
    autostart: bool = True  # False: only take up what runs (`bhyved --stop-all`)
