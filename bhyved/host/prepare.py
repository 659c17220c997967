"""What a start takes of the host, in an order that leaves nothing behind unnamed.

`host.machine` calls it. First everything is looked at, and refused what cannot work; then, without a pause in which another guest's
start could come between, things are chosen and the ledger is written; only then is the host changed: the stale node destroyed, taps
made, sockets removed, files written. Whatever fails from there on is in the ledger. Behind a run of our own the node is destroyed
meanwhile, which takes a restart's longest command out of its way: the ledger of that run still names all there is.
"""

import functools
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import msgspec
import trio

from bhyved.core import bhyveconf, macs, seed, slots
from bhyved.core.assigned import Assigned, nmdm_path
from bhyved.core.errors import HostError, in_words
from bhyved.core.handover import Order, Prepared
from bhyved.core.loader import LoaderCall, loader_call
from bhyved.core.saved import Here, SavedState, mismatch, moved
from bhyved.host import backing, cards, vnc
from bhyved.host.backing import Backing
from bhyved.host.durable import write_plain
from bhyved.host.hostlock import make_directory
from bhyved.host.ledger import VERSION, Ledger, Tap, spec_of, spec_text
from bhyved.host.limiting import refuse_unlimited
from bhyved.host.runlog import RunLog
from bhyved.host.seed import fingerprint
from bhyved.host.seedfiles import Fault
from bhyved.host.site import Site
from bhyved.host.stalesocket import unlink_socket
from bhyved.host.statefiles import StateFiles, bhyve_mark, disk_marks
from bhyved.host.suspending import cpu_model
from bhyved.host.swtpm import Swtpm
from bhyved.threads import in_thread

FILES_S = 10.0  # a stat takes microseconds, but for a dead NFS mount
_SEEN_S = 1.0  # so old may a look at the process table be: many guests start at once when a host boots

T = TypeVar("T")


class Ready(NamedTuple):
    """The host is as the run needs it."""

    prepared: Prepared
    loader: LoaderCall | None


class Preparation:
    """One start, until its processes can be spawned. `alive` is inherited by every host command."""

    def __init__(self, site: Site, order: Order, log: RunLog, swtpm: Swtpm, states: StateFiles, alive: int) -> None:
        self._site, self._order, self._log, self._swtpm, self._states, self._alive = site, order, log, swtpm, states, alive
        self._spec = order.spec
        self._name = order.spec.name
        self._before = site.ledgers.get(self._name)
        self._seed: seed.Files | None = None  # what is to be in the image; None: it is there
        self._warnings: tuple[str, ...] = ()

    async def make(self, *, after_own: bool) -> Ready:
        """Make the host ready. `after_own`: this restarts a run of ours that has just ended. Raises HostError, Stuck."""
        if after_own:  # the node is that run's, and no start would leave it there
            found, saved, assigned, wanted = await _beside(self._choose, self._destroy_node)
        else:
            await self._refuse_others()
            found, saved, assigned, wanted = await self._choose()
            await self._destroy_node()
        taps = await self._make_taps(wanted)
        assigned = msgspec.structs.replace(assigned, taps=dict(zip(wanted.wanted, taps, strict=True)))
        for path in self._ledger.sockets:
            unlink_socket(path)
        if assigned.tpm_socket:
            await self._start_swtpm()
        await self._make_seed(assigned)
        await self._site.crowd.pass_through()
        loader = self._write_files(assigned, saved)
        prepared = Prepared(
            taps=taps,
            vnc=assigned.vnc,
            slots=assigned.slots,
            macs=assigned.macs,
            warnings=(*found.warnings, *self._warnings),
            seed=self._ledger.seed,
        )
        if saved is not None:
            prepared = msgspec.structs.replace(prepared, resumed=self._states.shown())
            await in_thread(self._states.take)  # the last thing that can fail
        return Ready(prepared, loader)

    async def _choose(self) -> tuple[Backing, SavedState | None, Assigned, cards.Cards]:
        """Refuse what cannot work, choose the rest, and write it down."""
        found = await self._look_at_files()
        await refuse_unlimited(self._site.tools, self._spec.limits)
        saved = await self._saved_state(found)
        await self._site.crowd.pass_through()
        return found, saved, *self._claim(found, saved)

    async def _destroy_node(self) -> None:
        await self._site.vmm.destroy(self._name, pass_fd=self._alive)

    async def _refuse_others(self) -> None:
        seen, owner = await self._site.processes.look_soon(_SEEN_S), self._site.vmm.owner(self._name)
        # Perhaps our own run, which has ended since; or somebody has started one since, whose node must not go.
        if self._name in seen.guests or owner is not None:
            seen = await self._site.processes.look_soon()
        pid = seen.holder(self._name, owner)
        if pid is not None:
            raise HostError(f"a bhyve of {self._name} that bhyved did not start runs already (pid {pid}); stop it first", fatal=True)

    async def _look_at_files(self) -> Backing:
        look = functools.partial(
            backing.look,
            self._spec,
            install=self._order.install,
            bin=self._site.tools.bin,
            vars_path=f"{self._site.db}/vars/{self._name}.fd",
        )
        with trio.move_on_after(FILES_S):
            return await in_thread(look, abandon_on_cancel=True)
        raise HostError(f"the guest's disks and files did not answer within {FILES_S:g} s: is a mount dead?")

    async def _saved_state(self, found: Backing) -> SavedState | None:
        """The state that this run goes on from, if there is one and it fits. Raises HostError."""
        if self._states.is_begun:
            await in_thread(self._states.give_up)  # of a host that went down meanwhile
        shown = self._states.shown()
        if shown is None:
            return None
        if self._order.cold:
            await in_thread(self._states.discard)
            return None
        if shown.doubtful:
            raise self._unfit(
                f"a resume of it was cut short, and the guest may have written to its disks since: {shown.path} is renamed to "
                f"{self._states.saved} by whoever knows that they are as they were"
            )
        saved = self._states.about(shown.path)
        if self._order.install:
            raise self._unfit("it has no install media attached")
        here = Here(
            bhyve=bhyve_mark(self._site.tools),
            cpu=await cpu_model(self._site),
            disks=await in_thread(disk_marks, [disk.path for disk in found.disks]),
        )
        why_not = mismatch(saved, spec_of(saved.spec), self._spec, here) or self._states.lacks(shown.path, int(self._spec.memory))
        if why_not:
            raise self._unfit(why_not)
        return saved

    def _unfit(self, why_not: str) -> HostError:
        remedy = f"`vmctl start --cold {self._name}` throws it away and boots the guest"
        return HostError(f"its saved state cannot be resumed: {why_not}; {remedy}", fatal=True)

    # --- choosing: no await between a look at what others have and the ledger ------------------------------------------------

    def _claim(self, found: Backing, saved: SavedState | None) -> tuple[Assigned, cards.Cards]:
        spec, site = self._spec, self._site
        ledgers, name = site.ledgers, self._name
        backing.check_free(found.disks, lambda key: ledgers.disk_users(key, name))
        wanted = cards.plan(spec, self._before.taps if self._before else {}, site.taps, self._taken_taps)
        endpoint = ""
        if spec.graphics is not None:
            endpoint = vnc.choose(spec.graphics.listen, self._before.vnc if self._before else "", ledgers.vncs.taken(name))
        directory = site.directory(name)
        assigned = Assigned(
            slots=slots.assign(spec, self._order.record.slots, site.target.arch),
            macs=macs.assign(spec, self._order.record.macs, host_id=site.host_id, taken=ledgers.macs.taken(name)),
            consoles={port.port: nmdm_path(self._name, port.port, site.dev) for port in spec.serial},
            sockets={console.name: f"{directory}/vtcon{number}.sock" for number, console in enumerate(spec.virtio_console)},
            firmware=found.firmware,
            bootvars=found.bootvars,
            tpm_socket=self._swtpm.socket if spec.tpm is not None and spec.tpm.type == "swtpm" else "",
            vnc=endpoint,
            vnc_password=found.vnc_password,
            install=self._order.install,
            first_run=self._order.first and saved is None,  # a resumed guest needs no viewer to go on
        )
        of = self._choose_seed(assigned, found, saved)
        if of:
            assigned = msgspec.structs.replace(assigned, seed=site.images.path(self._name))
        self._note(msgspec.structs.replace(self._first_ledger(assigned, wanted, found, resumes=saved is not None), seed=of))
        return assigned, wanted

    def _choose_seed(self, assigned: Assigned, found: Backing, saved: SavedState | None) -> str:
        """The fingerprint of the seed that this run is given; '' for none. A resumed guest has what it had."""
        spec, record = self._spec, self._order.record
        if spec.cloud_init is None or found.seed is None:
            return ""
        if found.seed_faults:
            of = self._seed_of_before(found.seed_faults[0])
        else:
            self._seed = seed.files(spec, found.seed, assigned.macs, slots.network_identities(spec))
            of = seed.fingerprint(self._seed)
        if saved is not None and saved.seed not in ("", of):
            raise self._unfit("what its cloud-init seed is made of has changed since: put that back to resume it")
        is_set_up = spec.cloud_init.when == "first" and record.seed == of
        return "" if (is_set_up if saved is None else not saved.seed) else of

    def _seed_of_before(self, fault: Fault) -> str:
        """A guest that reboots is not kept down by a file that it has had its use of. Raises HostError where it has not."""
        table, record = self._spec.cloud_init, self._order.record
        of = fingerprint(self._site.images.path(self._name))
        if not of and table is not None and table.when == "first":
            of = record.seed
        if not of:
            raise HostError(str(fault), fatal=not fault.is_missing)
        self._warnings = (f"{fault}; the guest goes on with the seed of before",)
        return of

    def _taken_taps(self) -> set[str]:
        return self._site.ledgers.taps.things(self._name)

    def _first_ledger(self, assigned: Assigned, wanted: cards.Cards, found: Backing, *, resumes: bool) -> Ledger:
        order, before = self._order, self._before
        sockets = [str(console.path or assigned.sockets[console.name]) for console in self._spec.virtio_console]
        if assigned.vnc.startswith("unix:"):
            sockets.append(assigned.vnc.removeprefix("unix:"))
        return Ledger(
            version=VERSION,
            run=order.run,
            boot=self._site.ledgers.boot,
            by=order.by,
            began_at=datetime.now(UTC),
            install=order.install,
            first=order.first,
            resume=self._states.file(self._states.resuming) if resumes else "",
            bhyve=bhyve_mark(self._site.tools),
            taps=wanted.wanted,
            leftover=(*wanted.leftover, *(before.leftover if before else ())),
            macs=tuple(assigned.macs.values()),
            disks=found.disks,
            consoles=tuple(assigned.consoles.values()),
            vnc=assigned.vnc,
            sockets=tuple(sockets),
            tpm=assigned.tpm_socket,
            spec=spec_text(self._spec),
        )

    def _note(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._site.ledgers.put(self._name, ledger)

    # --- changing the host ---------------------------------------------------------------------------------------------------

    async def _make_taps(self, wanted: cards.Cards) -> tuple[str, ...]:
        taps = self._site.taps
        for tap in self._ledger.leftover:
            await taps.destroy(tap.name, tap.description, pass_fd=self._alive)
        if self._ledger.leftover:
            self._note(msgspec.structs.replace(self._ledger, leftover=()))

        def chosen(identity: str, tap: Tap) -> None:
            self._note(msgspec.structs.replace(self._ledger, taps={**self._ledger.taps, identity: tap}))

        names = await cards.make(wanted, taps, taken=self._taken_taps, chosen=chosen, pass_fd=self._alive)
        await cards.attach_given(self._spec, taps, pass_fd=self._alive)
        return names

    async def _start_swtpm(self) -> None:
        log = self._log.open()
        try:
            await self._swtpm.start(log)
        finally:
            os.close(log)

    async def _make_seed(self, assigned: Assigned) -> None:
        scratch = f"{self._site.directory(self._name)}/seed"
        if assigned.seed and self._seed is not None:
            await self._site.images.make(self._name, self._seed, scratch=scratch, pass_fd=self._alive)
        elif not assigned.seed:
            try:
                self._site.images.drop(self._name, scratch=scratch)
            except HostError as error:  # the guest does not need that file to be gone
                self._warnings = (*self._warnings, f"the seed of before stays, with what is secret in it: {error}")

    def _write_files(self, assigned: Assigned, saved: SavedState | None) -> LoaderCall | None:
        try:
            text = bhyveconf.render(self._spec, assigned, self._site.target)
        except bhyveconf.ConfError as error:
            raise HostError(str(error), fatal=True) from None
        odd = "" if saved is None else moved(saved, text)
        if odd:
            raise self._unfit(odd)
        _write(self._site.conf(self._name), text, 0o600)  # a VNC password may be in it
        directory = self._site.loader_directory(self._name)
        call = loader_call(self._spec, assigned, directory)
        if call is not None and call.files:
            # Not below the guest's own directory: grub-bhyve is nobody by the time it reads them (contract 2.3).
            make_directory(directory, 0o755)
            for name, text in call.files.items():
                _write(f"{directory}/{name}", text, 0o644)
        return call


async def _beside(work: Callable[[], Awaitable[T]], other: Callable[[], Awaitable[None]]) -> T:
    """Both at once, each to its end whatever becomes of the other. Raises HostError: what `other` raised, or else `work`."""
    errors: list[HostError] = []

    async def do_other() -> None:
        try:
            await other()
        except HostError as error:
            errors.insert(0, error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_other)
        try:
            done = await work()
        except HostError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return done


def _write(path: str, text: str, mode: int) -> None:
    try:
        write_plain(path, text.encode(), os.O_TRUNC, mode)
    except OSError as error:
        raise HostError(f"{path}: {in_words(error)}") from None
