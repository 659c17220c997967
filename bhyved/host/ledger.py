"""The ledger of a run, RUN/vm/NAME/run.toml: what this run has of the host, so that whoever finds it can give it back.

Written before the first side effect of a start, whole (a temporary file and a rename) but without fsync: it dies with the host, as all
that it names does. A ledger of another boot is history. `Ledgers` also has them all in memory: a start looks at the others for taps,
ports and disks that are taken.
"""

import contextlib
import os
import tomllib
from collections.abc import Iterator
from datetime import datetime

import msgspec
import tomli_w

from bhyved.core.errors import HostError, in_words
from bhyved.core.spec import VmSpec
from bhyved.core.units import dec_hook, enc_hook
from bhyved.host.claims import Claims
from bhyved.host.durable import read_plain, remove, write_plain

VERSION = 1
FILE = "run.toml"


class Tap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tap of ours."""

    name: str
    description: str  # what it is signed with
    bridge: str = ""
    mtu: int = 0


class DiskUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"):
    """A disk as the kernel knows it: two paths to one disk have one key."""

    path: str
    key: str
    writes: bool = True
    shared: bool = False


class Ledger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"):
    """What run.toml says. There is no password in it."""

    version: int
    run: str
    boot: str
    by: str
    began_at: datetime
    install: bool = False
    first: bool = False
    resume: str = ""  # the saved state that its bhyve is given
    bhyve: str = ""  # the program as it was when the run began
    suspending: str = ""  # who has asked for a suspend, of which nobody knows yet what came of it
    suspend_log: int = 0  # where in its log that began
    taps: dict[str, Tap] = {}  # by card
    leftover: tuple[Tap, ...] = ()  # of the run before, to be destroyed
    macs: tuple[str, ...] = ()
    disks: tuple[DiskUse, ...] = ()
    consoles: tuple[str, ...] = ()  # A sides
    vnc: str = ""
    sockets: tuple[str, ...] = ()  # that bhyve makes and cannot remove
    tpm: str = ""  # swtpm's socket
    seed: str = ""  # the fingerprint of the cloud-init seed that is attached
    spec: str = ""  # as started, JSON: twenty times as fast to read as TOML, and five hundred are read at a daemon's start

    def started_spec(self) -> VmSpec | None:
        """The guest's configuration as it was started; None when this version cannot read it."""
        return spec_of(self.spec)


def spec_of(text: str) -> VmSpec | None:
    """What `spec_text` has written; None when this version cannot read it."""
    try:
        return msgspec.json.decode(text, type=VmSpec, dec_hook=dec_hook)
    except msgspec.MsgspecError:
        return None


def spec_text(spec: VmSpec) -> str:
    """A spec for `Ledger.spec`: complete, since a later version may have other defaults; without what ends a literal string of TOML."""
    return msgspec.json.encode(spec, enc_hook=enc_hook).decode().replace("'", "\\u0027").replace("\x7f", "\\u007f")


class Ledgers:
    """All ledgers of this boot, below one directory."""

    def __init__(self, directory: str, boot: str) -> None:
        self.boot = boot
        self._directory = directory
        self._ledgers: dict[str, Ledger] = {}
        self._problems: dict[str, HostError] = {}
        self.taps, self.macs, self.vncs, self._disks = Claims(), Claims(), Claims(), Claims()
        for name in _names(directory):
            self._read(name)

    def _read(self, name: str) -> None:
        path = self.path(name)
        try:
            table = tomllib.loads(read_plain(path).decode())
            version = table.get("version")
            if isinstance(version, int) and version > VERSION:
                raise HostError(
                    f"{path} is of a newer bhyved (format {version}, this one knows {VERSION}): upgrade bhyved again", fatal=True
                )
            ledger = msgspec.convert(table, Ledger)
        except FileNotFoundError:
            return
        except HostError as error:
            self._problems[name] = error
        except OSError as error:
            self._problems[name] = HostError(f"{path}: {in_words(error)}")
        except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, not what a ledger says
            self._problems[name] = HostError(f"{path} cannot be read: {error}")
        else:
            if ledger.boot == self.boot:
                self._know(name, ledger)

    def path(self, name: str) -> str:
        return f"{self._directory}/{name}/{FILE}"

    def names(self) -> list[str]:
        """Guests that have one, or a file that cannot be read in its place."""
        return sorted(self._ledgers.keys() | self._problems.keys())

    def get(self, name: str) -> Ledger | None:
        """The ledger of a guest's present or last run of this boot."""
        return self._ledgers.get(name)

    def problem(self, name: str) -> HostError | None:
        """Why there is a ledger and no reading it; `fatal` where it may not be written over either."""
        return self._problems.get(name)

    def disk_users(self, key: str, but: str) -> Iterator[tuple[str, DiskUse]]:
        """The other guests whose runs have a disk, and how."""
        for name in self._disks.others(key, but):
            yield from ((name, use) for use in self._ledgers[name].disks if use.key == key)

    def _know(self, name: str, ledger: Ledger | None) -> None:
        old = self._ledgers.get(name)
        for claims, things in ((self.taps, _taps), (self.macs, _macs), (self.vncs, _vncs), (self._disks, _disks)):
            claims.change(name, things(old) if old is not None else (), things(ledger) if ledger is not None else ())
        if ledger is not None:
            self._ledgers[name] = ledger
        else:
            self._ledgers.pop(name, None)

    def put(self, name: str, ledger: Ledger, *, atomically: bool = False) -> None:
        """Write it down; `atomically` while a run that it is of is under way. Raises HostError, and then the old one stands."""
        path = self.path(name)
        table = msgspec.to_builtins(ledger, builtin_types=(datetime,), enc_hook=enc_hook)
        # As a literal string, which takes JSON as it is: a quarter of a millisecond of escaping less.
        text = f"spec = '{table.pop('spec', '')}'\n{tomli_w.dumps(table)}"
        try:
            write_plain(f"{path}.new", text.encode(), os.O_TRUNC)
            # Not in one step: to replace a file makes some file systems flush it, milliseconds of every restart. A daemon that is killed
            # in between leaves no run without its ledger: none has begun, and taps and nodes without one are removed at the next start.
            if not atomically:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            os.rename(f"{path}.new", path)
        except OSError as error:
            raise HostError(f"{path}: {in_words(error)}") from None
        self._know(name, ledger)
        self._problems.pop(name, None)

    def drop(self, name: str) -> None:
        """The run is over and everything is given back."""
        remove(self.path(name))
        self._know(name, None)
        self._problems.pop(name, None)


def _taps(ledger: Ledger) -> set[str]:
    return {tap.name for tap in (*ledger.taps.values(), *ledger.leftover)}


def _macs(ledger: Ledger) -> set[str]:
    return set(ledger.macs)


def _vncs(ledger: Ledger) -> set[str]:
    return {ledger.vnc} if ledger.vnc else set()


def _disks(ledger: Ledger) -> set[str]:
    return {use.key for use in ledger.disks}


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
