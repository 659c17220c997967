"""The words that daemon and host share.

The daemon knows its host only through these protocols; `bhyved.host` implements them for FreeBSD (and, against the lab's tools,
anywhere), the tests by small fakes. Nothing here imports trio: a port takes no nursery. Methods named `…_nowait` and plain `def`s
return at once; `async` ones may take their time, which is bounded unless the docstring says otherwise. HostError and Stuck are
those of `bhyved.core.errors`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from bhyved.core.config import Loaded
from bhyved.core.drain import Drain
from bhyved.core.exits import Outcome
from bhyved.core.handover import Found as Found
from bhyved.core.handover import Order as Order
from bhyved.core.handover import Prepared as Prepared
from bhyved.core.handover import Ran as Ran
from bhyved.core.handover import Reconciled as Reconciled
from bhyved.core.limits import Limits
from bhyved.core.room import HostMemory
from bhyved.core.snapshots import Dataset, Seen
from bhyved.core.status import Event, RunRecord, Suspension, VmRecord


class Machine(Protocol):
    """One guest's side of the host, for as long as the guest is known. At most one run at a time."""

    def find(self) -> Found | None:
        """The run an earlier daemon left, if its ledger is of this boot. Reads a few small files; opens the liveness FIFO.

        Raises HostError where it cannot be known now whether there is one.
        """

    def suspended(self) -> Suspension | None:
        """The saved state that the next start would resume. Reads a small file."""

    async def prepare(self, order: Order) -> Prepared:
        """Destroy what is stale, make taps, sockets and files; the ledger is written first. Raises HostError.

        A saved state is resumed, unless the order is for a cold start; one that does not fit is an error.
        """

    def spawn_loader(self, consoles: Sequence[int]) -> None:
        """Start the loader under a keeper. Raises HostError."""

    def spawn_bhyve(self, consoles: Sequence[int]) -> None:
        """Start bhyve under a keeper, which inherits the descriptors in `consoles`. Raises HostError."""

    async def watch(self, started: Callable[[int], None]) -> Outcome:
        """Wait, without limit, until nobody holds the liveness FIFO. `started` is called with bhyve's (or the loader's) pid."""

    async def title_is_set(self) -> bool:
        """Whether the process shows as `bhyve: NAME`: all its resources are acquired (contract 1.6, step 14)."""

    async def press(self) -> None:
        """The ACPI power button: SIGTERM to bhyve. Nothing to press is no error. Raises HostError."""

    async def force(self, how: str) -> None:
        """`poweroff` or `reset` by bhyvectl; a second request is no error. Raises HostError."""

    async def inject_nmi(self) -> None:
        """A non-maskable interrupt by bhyvectl. Raises HostError."""

    async def limit(self, limits: Limits | None) -> None:
        """Have the present bhyve run under these limits and no others of ours. Without a process, nothing happens. Raises HostError."""

    async def vm_exits(self) -> int:
        """How often the guest's processors have left it for the host so far. Raises HostError."""

    async def check_suspend(self) -> tuple[str, ...]:
        """What may go wrong when the present run is suspended, a sentence each. Raises HostError where it cannot be."""

    async def suspend(self, by: str) -> str:
        """Have bhyve write its state to disk and end. Returns why that failed, and then the guest goes on; a success is what `watch`
        returns, and this is to be cancelled by then. One that an earlier daemon has begun is only waited for. Raises HostError."""

    async def spent(self) -> bool:
        """The guest runs on from its saved state, which must not be resumed again. False: it is gone already."""

    async def kill(self) -> None:
        """SIGKILL to the loader or bhyve. Nothing to kill is no error."""

    async def clean(self, *, final: bool) -> None:
        """After the end of a run: `final` destroys node and taps and drops the ledger. Raises Stuck, HostError."""


class Vault(Protocol):
    """What survives a host crash (design: temporary file, fsync, rename)."""

    def load(self) -> dict[str, VmRecord]:
        """Every guest's record; broken ones are set aside and reported through `problems`."""

    async def save(self, name: str, record: VmRecord) -> None:
        """Durable when this returns. Raises HostError."""

    async def forget(self, name: str) -> None:
        """The guest is no longer configured."""


class DrainFile(Protocol):
    """A drain of the host, as it survives the daemon on this boot."""

    def load(self) -> Drain | None:
        """What an earlier daemon left. Blocks; called once."""

    async def save(self, drain: Drain | None) -> None:
        """Durable when this returns; None: there is none any more. Raises HostError."""


class Journal(Protocol):
    """Events and run records, bounded on disk, replayable across daemon restarts."""

    def append(self, event: str, /, **fields: object) -> Event:
        """Number, stamp and publish one event. Never waits; a disk that is full costs the event on disk, not the caller."""

    def add_run(self, record: RunRecord) -> None:
        """One line of a guest's history."""

    def runs(self, name: str, last: int) -> list[RunRecord]:
        """The newest `last` runs of a guest, oldest first."""

    def since(self, seq: int) -> list[Event]:
        """Events after `seq` that are still kept."""


class Commands(Protocol):
    """The operator's own commands: hooks, probes, `stop.command`."""

    async def run(self, argv: Sequence[str], *, limit_s: float, input: bytes = b"", env: Mapping[str, str] = {}, run_as: str = "") -> Ran:
        """One command in its own process group and a clean environment, killed when its time is up. Raises HostError."""


class News(Protocol):
    """What the host tells of itself."""

    def listen(self) -> bool:
        """From now on nothing is missed that comes; False: nobody tells. Asked again, it goes on as it is."""

    async def wait(self) -> None:
        """Return when something may have come, or nobody is there any more to tell."""

    def close(self) -> None:
        """Nobody wants to know any more."""


class Host(Protocol):
    """The machine as a whole."""

    @property
    def boot(self) -> str:
        """This boot's id, hex."""

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC, the clock of records."""

    def utc(self) -> datetime:
        """Now, for people."""

    def machine(self, name: str) -> Machine:
        """The (one) Machine of this guest."""

    def ledgers(self) -> list[str]:
        """Guests of whom a ledger of this boot exists, configured or not."""

    async def reconcile(self, names: Sequence[str]) -> Reconciled:
        """Remove what no run of this boot owns: our taps, and nodes of `names` without a live bhyve. Once, when a daemon starts."""

    async def shutdown_limits(self) -> tuple[float | None, float | None]:
        """Seconds of rc.conf's rcshutdown_timeout and of kern.init_shutdown_timeout; None: the host did not say."""

    async def memory(self) -> HostMemory:
        """How much it has, and how much may be wired."""

    async def missing(self, needs: Sequence[str]) -> dict[str, str]:
        """Those of `needs` that are not there, and why, in words. Bounded in time."""

    def news(self) -> News:
        """Whether any of these may have come."""

    async def load_modules(self) -> None:
        """Load vmm and nmdm where they are missing. Raises HostError."""


class Datasets(Protocol):
    """ZFS, as far as it has disks of guests. All methods are bounded in time and raise HostError."""

    async def locate(self, paths: Sequence[str]) -> tuple[Dataset, ...]:
        """The datasets that these disks are on. HostError names the first that is not on ZFS."""

    async def look(self, datasets: Sequence[Dataset]) -> list[Seen]:
        """Their snapshots and bookmarks, of each in the order in which they were taken."""

    async def count(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Dataset → snapshot → unix time; datasets that do not exist are left out."""

    async def snapshot(self, datasets: Sequence[Dataset], name: str, properties: Mapping[str, str], *, limit_s: float) -> None:
        """All or none, and those of one pool at one moment."""

    async def destroy(self, full: str) -> None:
        """One snapshot of one dataset."""

    async def roll_back(self, vm: str, full: str, *, destroy_newer: bool) -> None:
        """One dataset, to one of its snapshots."""


class Files(Protocol):
    """The configuration files."""

    def read(self) -> Loaded:
        """Everything, strictly. Reads the disk: call it in a thread."""

    def accept(self) -> None:
        """What was read last is in force: keep a good copy of each file. Blocks on the disk. Raises HostError."""


class Tty(Protocol):
    """Side B of one nmdm pair, raw and CLOCAL, non-blocking."""

    @property
    def fd(self) -> int:
        """For the keeper to inherit, and to wait on."""

    def read(self, size: int) -> bytes | None:
        """None: nothing now. b'': the line is dead, close and open again (contract 4.4)."""

    def write(self, data: bytes) -> int:
        """How many bytes the line took, perhaps 0."""

    def close(self) -> None:
        """May take about a second in the kernel (contract 4.4): call it in a thread."""
