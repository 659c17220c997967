"""What a start takes of the host, refuses, keeps and gives back."""

import os
import socket
import sys
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from bhyved.core.errors import HostError
from bhyved.core.spec import VmSpec
from bhyved.core.status import VmRecord
from bhyved.host import backing, swtpm
from bhyved.host import prepare as module
from bhyved.host.backing import Backing
from bhyved.host.ledger import Ledger
from bhyved.host.machine import GuestMachine
from tests.host.onehost import OneHost, end_of, guest, order, start, until_pid
from tests.host.scripts import is_alive, until


def conf(host: OneHost, name: str = "web") -> dict[str, str]:
    lines = (host.directory(name) / "bhyve.conf").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def ledger(machine: GuestMachine) -> Ledger:
    found = machine._ledger
    assert found is not None
    return found


def taps(host: OneHost) -> list[str]:
    return sorted(path.stem for path in host.interfaces.glob("tap*.if"))


# --- foreign guests, stale nodes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["bhyve: web (bhyve)", "bhyve: web", "/usr/sbin/bhyve -AHP -m 1G web", "bhyveload -m 1G web", "/usr/local/sbin/grub-bhyve -r hd0 web"],
)
async def test_a_foreign_bhyve_is_left_alone(host: OneHost, machine: GuestMachine, command: str) -> None:
    """A bhyve or a loader of that name that somebody else started is named, and its node not touched."""
    host.node().parent.mkdir()
    host.node().touch()
    host.scripts.write("ps", f"echo '  4711 0 0 {command}'")
    with pytest.raises(HostError, match=r"^a bhyve of web that bhyved did not start runs already \(pid 4711\); stop it first$") as refused:
        await machine.prepare(order(guest()))
    await machine.clean(final=True)

    assert refused.value.fatal
    assert host.node().exists()


async def test_a_foreign_bhyve_that_has_just_come_is_left_alone(host: OneHost, machine: GuestMachine) -> None:
    """Where there is a node, a look at the processes that was had a moment ago does not do."""
    await machine._site.processes.look_soon()
    host.node().parent.mkdir()
    host.node().touch()
    host.scripts.write("ps", "echo '  4711 0 0 bhyve: web (bhyve)'")
    with pytest.raises(HostError, match=r"runs already \(pid 4711\)"):
        await machine.prepare(order(guest()))

    assert host.node().exists()


@pytest.mark.parametrize(
    "command", ["bhyve: web1 (bhyve)", "bhyve -m 1G myweb", "vi /etc/bhyve.web", "bhyve web1", "sh /root/bhyve-web.sh web"]
)
async def test_others_are_not_taken_for_it(host: OneHost, machine: GuestMachine, command: str) -> None:
    """Only the whole name counts, and only a bhyve."""
    host.scripts.write("ps", f"echo '  4711 0 0 {command}'")
    await machine.prepare(order(guest()))


async def test_a_process_that_only_says_so_keeps_no_guest_down(host: OneHost, machine: GuestMachine) -> None:
    """Another user's process may call itself `bhyve: web`; without a node of that user's it is nobody's guest, and never gets a signal."""
    host.node().parent.mkdir()
    host.node().touch()
    host.scripts.write("ps", f"echo '  4711 {os.geteuid() + 1} 0 bhyve: web (bhyve)'")
    await machine.prepare(order(guest()))

    assert not host.node().exists()
    assert await machine._process.survivor() is None


async def test_a_stale_node_is_destroyed_first(host: OneHost, machine: GuestMachine) -> None:
    """Every run begins with a new node."""
    host.node().parent.mkdir()
    host.node().touch()
    await machine.prepare(order(guest()))

    assert not host.node().exists()


async def test_an_automatic_restart_needs_one_host_command(host: OneHost, machine: GuestMachine) -> None:
    """A guest that ended under our eyes starts again with nothing but the destroy of its node."""
    await start(machine, guest(do="exit 0"))
    await end_of(machine)
    await machine.clean(final=False)
    before = len(host.scripts.calls)
    machine._site.processes._seen_at = float("-inf")
    await start(machine, guest(do="exit 0"), first=False)

    assert [call.split()[0] for call in host.scripts.calls[before:] if not call.startswith("bhyve ")] == ["bhyvectl"]
    await end_of(machine)


async def ended_once(machine: GuestMachine, spec: VmSpec) -> None:
    """A run of it has ended under our eyes, and its node is still there."""
    await start(machine, spec)
    await end_of(machine)
    await machine.clean(final=False)


async def test_a_restart_does_not_wait_for_its_node_to_go(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While bhyvectl destroys the node of the run before, the files of the next are looked at."""
    await ended_once(machine, guest(do="exit 0"))
    look = backing.look

    def look_late(*words: Any, **more: Any) -> Backing:
        trio.from_thread.run(until, lambda: "bhyvectl --vm=web --destroy" in host.scripts.calls)
        return look(*words, **more)

    monkeypatch.setattr(backing, "look", look_late)
    await machine.prepare(order(guest(do="exit 0"), first=False))

    assert not host.node().exists()


async def test_a_restart_that_is_refused_leaves_no_half_destroyed_node(host: OneHost, machine: GuestMachine) -> None:
    """What is wrong with the next run is said when the node of the one before has gone."""
    spec = guest(do="exit 0", disk=[{"path": str(host.disk)}])
    await ended_once(machine, spec)
    host.scripts.write("bhyvectl", f"read go <{host.dev}/go; rm {host.node()}")
    os.mkfifo(host.dev / "go")
    host.disk.unlink()
    with (host.dev / "go").open("r+b", buffering=0) as go:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def let_it_go() -> None:
                await trio.testing.wait_all_tasks_blocked(0.1)
                go.write(b"go\n")

            with pytest.raises(HostError, match=rf"^disk {host.disk}: no such file"):
                await machine.prepare(order(spec, first=False))

    assert not host.node().exists()


async def test_a_restart_over_a_node_that_stays_is_refused(host: OneHost, machine: GuestMachine) -> None:
    """What the kernel does not destroy is said, whatever else is wrong."""
    spec = guest(do="exit 0", disk=[{"path": str(host.disk)}])
    await ended_once(machine, spec)
    host.scripts.write("bhyvectl", "exit 0")
    host.disk.unlink()
    with pytest.raises(HostError, match=rf"^{host.node()} is still there after two"):
        await machine.prepare(order(spec, first=False))


# --- disks -----------------------------------------------------------------------------------------------------------------------


async def test_a_disk_that_another_run_has(host: OneHost) -> None:
    """A disk in use is refused by what it is, not by its path, and its user is named; once that has ended it is free."""
    other_path = host.root / "link.img"
    other_path.symlink_to(host.disk)
    daemon = host.daemon()
    db, web = daemon.machine("db"), daemon.machine("web")
    await db.prepare(order(guest("db", disk=[{"path": str(other_path)}])))
    spec = guest(disk=[{"path": str(host.disk)}])

    with pytest.raises(
        HostError, match=rf"^disk {host.disk} is in use by db, as {other_path}; they can run together only if both say shared"
    ):
        await web.prepare(order(spec))
    await web.clean(final=True)
    await db.clean(final=True)
    await web.prepare(order(spec))


async def test_a_disk_of_a_run_that_the_daemon_before_began(host: OneHost) -> None:
    """A daemon that has just started knows the disks of all ledgers, whether or not anybody has asked for those guests."""
    first = host.daemon().machine("db")
    await first.prepare(order(guest("db", disk=[{"path": str(host.disk)}])))
    host.die(first)

    with pytest.raises(HostError, match="is in use by db"):
        await host.daemon().machine("web").prepare(order(guest(disk=[{"path": str(host.disk)}])))


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        ({"shared": True}, {"shared": True}, True),
        ({"shared": True}, {}, False),
        ({"read-only": True}, {"read-only": True}, True),
        ({"read-only": True}, {}, False),
        ({}, {"read-only": True}, False),
    ],
)
async def test_sharing_disks(host: OneHost, first: dict[str, Any], second: dict[str, Any], fits: bool) -> None:
    """Two runs have one disk only if both say shared, or neither writes."""
    daemon = host.daemon()
    path = {"path": str(host.disk)}
    await daemon.machine("db").prepare(order(guest("db", disk=[path | first])))
    preparing = daemon.machine("web").prepare(order(guest(disk=[path | second])))
    if fits:
        await preparing
    else:
        with pytest.raises(HostError, match="is in use by db"):
            await preparing


async def test_two_starts_at_once_do_not_get_one_disk(host: OneHost) -> None:
    """Of two guests that start together over one disk, exactly one does."""
    daemon = host.daemon()
    refused = []

    async def prepare(name: str) -> None:
        try:
            await daemon.machine(name).prepare(order(guest(name, disk=[{"path": str(host.disk)}])))
        except HostError:
            refused.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("web", "db"):
            nursery.start_soon(prepare, name)

    assert len(refused) == 1


@pytest.mark.parametrize(
    ("table", "sentence", "fatal"),
    [
        ({"disk": [{"path": "/nowhere/x.img"}]}, "disk /nowhere/x.img: no such file or directory", False),
        ({"disk": [{"path": "/usr"}]}, "disk /usr is neither a file nor a disk device", True),
        ({"cdrom": [{"path": "/nowhere/x.iso"}]}, "cdrom /nowhere/x.iso: no such file or directory", False),
        ({"share": [{"name": "s", "path": "/nowhere"}]}, "share s: /nowhere is no directory", False),
        ({"boot": {"firmware": "/nowhere/rom.fd"}}, "firmware /nowhere/rom.fd does not exist", True),
        (
            {"boot": {"loader": "uefi-csm"}},
            "firmware /usr/local/share/uefi-firmware/BHYVE_UEFI_CSM.fd does not exist: pkg install uefi-edk2-bhyve-csm",
            True,
        ),
        ({"boot": {"vars": "/nowhere/v.fd"}}, "variables /nowhere/v.fd: no such file or directory", False),
        ({"boot": {"vars-template": "/nowhere/v.fd"}}, "variables template /nowhere/v.fd does not exist", True),
        ({"graphics": {"password-file": "/nowhere/pw"}}, "password file /nowhere/pw: no such file or directory", True),
    ],
)
async def test_what_is_missing_is_said(host: OneHost, machine: GuestMachine, table: dict[str, Any], sentence: str, fatal: bool) -> None:
    """A file that is not there is named; `fatal` is what will not come by waiting. Nothing of the host is taken."""
    with pytest.raises(HostError) as refused:
        await machine.prepare(order(guest(**table)))

    assert (str(refused.value), refused.value.fatal) == (sentence, fatal)
    assert machine._ledger is None


async def test_install_media_are_looked_at_when_they_are_used(machine: GuestMachine) -> None:
    """A missing install medium is no obstacle to a start without it."""
    spec = guest(cdrom=[{"path": "/nowhere/x.iso", "when": "install"}])
    await machine.prepare(order(spec))
    with pytest.raises(HostError, match=r"^cdrom /nowhere/x\.iso: "):
        await machine.prepare(order(spec, install=True))


async def test_one_disk_twice(host: OneHost, machine: GuestMachine) -> None:
    """One disk under two paths in one guest is refused."""
    (host.root / "link.img").hardlink_to(host.disk)
    spec = guest(disk=[{"path": str(host.disk)}, {"path": str(host.root / "link.img")}])
    with pytest.raises(HostError, match=rf"^disk {host.root}/link.img is the same as {host.disk}$"):
        await machine.prepare(order(spec))


async def test_a_disk_that_cannot_be_written(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """bhyve would open it read-only without a word; a start says so, unless that is meant."""
    may = os.access  # root may write whatever the mode says
    monkeypatch.setattr(os, "access", lambda path, mode: may(path, mode) and (path, mode) != (str(host.disk), os.W_OK))
    with pytest.raises(HostError, match=rf"^disk {host.disk} cannot be written"):
        await machine.prepare(order(guest(disk=[{"path": str(host.disk)}])))
    await machine.prepare(order(guest(disk=[{"path": str(host.disk), "read-only": True}])))


async def test_a_dead_mount_does_not_hold_up_the_daemon(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer fails this start after a while; the loop goes on meanwhile."""
    monkeypatch.setattr(module, "FILES_S", 0.05)
    reading, writing = os.pipe()
    monkeypatch.setattr(module.backing, "look", lambda *_, **__: os.read(reading, 1))
    with trio.fail_after(10), pytest.raises(HostError, match=r"did not answer within 0.05 s: is a mount dead\?$"):
        await machine.prepare(order(guest()))
    os.close(writing)


# --- taps ------------------------------------------------------------------------------------------------------------------------


async def test_taps_are_made_signed_and_written_down(host: OneHost, machine: GuestMachine) -> None:
    """Each card on a bridge gets a tap; the ledger and bhyve's file name it."""
    prepared = await machine.prepare(order(guest(network=[{"bridge": "lan0"}, {"bridge": "wan0", "mtu": 9000}])))

    assert prepared.taps == ("tap1000", "tap1001") == tuple(taps(host))
    assert [tap.name for tap in ledger(machine).taps.values()] == ["tap1000", "tap1001"]
    assert "description: bhyved web/1" in (host.interfaces / "tap1001.if").read_text()
    assert (conf(host)["pci.0.10.0.backend"], conf(host)["pci.0.11.0.backend"]) == prepared.taps


async def test_guests_do_not_share_taps(host: OneHost) -> None:
    """A tap that a ledger names is taken, although no interface shows it yet."""
    daemon = host.daemon()
    one = await daemon.machine("web").prepare(order(guest(network=[{"bridge": "lan0"}])))
    two = await daemon.machine("db").prepare(order(guest("db", network=[{"bridge": "lan0"}])))

    assert (one.taps, two.taps) == (("tap1000",), ("tap1001",))


async def test_a_tap_that_somebody_else_makes_meanwhile(host: OneHost, machine: GuestMachine) -> None:
    """The next number is taken, written down first, and the foreign tap left as it is."""
    host.scripts.tools.ask(["ifconfig", "tap1000", "create"])
    prepared = await machine.prepare(order(guest(network=[{"bridge": "lan0"}, {"bridge": "lan0"}])))

    assert prepared.taps == ("tap1002", "tap1001")
    assert tuple(tap.name for tap in ledger(machine).taps.values()) == prepared.taps
    await machine.clean(final=True)
    assert taps(host) == ["tap1000"]


async def test_a_restart_keeps_its_taps(host: OneHost, machine: GuestMachine) -> None:
    """After one look at the bridge the taps of the run before serve again, put up: the end of their bhyve took them down."""
    spec = guest(do="exit 0", network=[{"bridge": "lan0"}])
    await start(machine, spec)
    await end_of(machine)
    tap = host.interfaces / "tap1000.if"
    tap.write_text(tap.read_text().replace("<UP,", "<"))
    await machine.clean(final=False)
    before = len(host.scripts.calls)
    prepared = await machine.prepare(order(spec, first=False))

    assert prepared.taps == ("tap1000",)
    assert [call for call in host.scripts.calls[before:] if call.startswith("ifconfig")] == ["ifconfig lan0", "ifconfig tap1000 up"]
    assert "<UP," in tap.read_text()


async def test_a_tap_that_fell_off_its_bridge_is_made_again(host: OneHost, machine: GuestMachine) -> None:
    """A guest never starts on a tap that leads nowhere."""
    spec = guest(network=[{"bridge": "lan0"}])
    await machine.prepare(order(spec))
    bridge = host.interfaces / "lan0.if"
    bridge.write_text("".join(line for line in bridge.read_text().splitlines(keepends=True) if "member" not in line))
    await machine.prepare(order(spec, first=False))

    assert "member: tap1000" in bridge.read_text()


async def test_taps_that_are_not_wanted_any_more(host: OneHost, machine: GuestMachine) -> None:
    """When the cards have changed, the taps of the run before are destroyed, not leaked."""
    await machine.prepare(order(guest(network=[{"bridge": "lan0"}, {"bridge": "wan0"}])))
    prepared = await machine.prepare(order(guest(network=[{"bridge": "wan0"}])))

    assert taps(host) == list(prepared.taps)
    await machine.clean(final=True)
    assert taps(host) == []


async def test_a_missing_bridge_leaves_nothing(host: OneHost, machine: GuestMachine) -> None:
    """The start fails with the bridge's name, and the clean-up takes back the tap that had been made."""
    with pytest.raises(HostError, match=r'^bridge "lan7" does not exist: make it '):
        await machine.prepare(order(guest(network=[{"bridge": "lan7"}])))
    assert taps(host) == ["tap1000"]
    await machine.clean(final=True)

    assert taps(host) == []


async def test_the_operators_own_tap(host: OneHost, machine: GuestMachine) -> None:
    """It must exist and be free, is put on its bridge and up, and stays when the guest goes."""
    spec = guest(network=[{"tap": "tap7", "bridge": "lan0"}])
    with pytest.raises(HostError, match=r"^tap7 does not exist"):
        await machine.prepare(order(spec))
    await machine.clean(final=True)
    host.scripts.tools.ask(["ifconfig", "tap7", "create"])
    await machine.prepare(order(spec))

    assert "member: tap7" in (host.interfaces / "lan0.if").read_text()
    assert "<UP," in (host.interfaces / "tap7.if").read_text()
    await machine.clean(final=True)
    assert taps(host) == ["tap7"]
    (host.interfaces / "tap7.pid").write_text("99")
    with pytest.raises(HostError, match=r"^tap7 is open by process 99$"):
        await machine.prepare(order(spec))


# --- VNC, sockets, variables, names ----------------------------------------------------------------------------------------------


async def test_vnc_ports(host: OneHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first free port is chosen; ledgers and listeners have theirs; a restart keeps its own."""
    daemon = host.daemon()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        monkeypatch.setattr(module.vnc, "FIRST_PORT", taken)
        web = await daemon.machine("web").prepare(order(guest(graphics={})))
        db = await daemon.machine("db").prepare(order(guest("db", graphics={})))
        await daemon.machine("web").clean(final=True)
        again = await daemon.machine("db").prepare(order(guest("db", graphics={})))
    ports = [int(each.vnc.removeprefix("127.0.0.1:")) for each in (web, db, again)]

    assert taken < ports[0] < ports[1] == ports[2]
    assert conf(host, "db")["pci.0.29.0.tcp"] == db.vnc


async def test_vnc_waits_on_the_first_run_only(host: OneHost, machine: GuestMachine) -> None:
    """Nobody sits there when a guest restarts by itself."""
    spec = guest(graphics={"listen": "127.0.0.1:5999", "wait": True})
    waits = []
    for first in (True, False):
        prepared = await machine.prepare(order(spec, first=first))
        waits.append(conf(host).get("pci.0.29.0.wait"))

    assert waits == ["true", None]
    assert prepared.vnc == "127.0.0.1:5999"


async def test_the_vnc_password(host: OneHost, machine: GuestMachine) -> None:
    """Its first eight characters go into bhyve's file, which is root's alone, and nowhere else; its file must be too."""
    path = host.root / "password"
    path.write_text("correct horse\n")
    spec = guest(graphics={"listen": "127.0.0.1:5999", "password-file": str(path)})
    for mode, why in ((0o644, "is open to everybody: chmod 600 it$"), (0o660, "may be written by members of group ")):
        path.chmod(mode)
        with pytest.raises(HostError, match=f"^password file {path} {why}") as refused:
            await machine.prepare(order(spec))
        assert refused.value.fatal
    path.chmod(0o600)
    path.rename(host.root / "elsewhere")
    path.symlink_to(host.root / "elsewhere")
    with pytest.raises(HostError, match=f"^password file {path}: too many (levels of symbolic )?links$"):
        await machine.prepare(order(spec))
    path.unlink()
    (host.root / "elsewhere").rename(path)
    await machine.prepare(order(spec))

    assert conf(host)["pci.0.29.0.password"] == "correct "
    assert "correct" not in (host.directory() / "run.toml").read_text()


async def test_stale_sockets_are_removed(host: OneHost, machine: GuestMachine) -> None:
    """Sockets of the run before would make bhyve fail; what is no socket is not removed."""
    vnc = host.root / "vnc.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(vnc))
    spec = guest(graphics={"listen": f"unix:{vnc}"}, **{"virtio-console": [{"name": "agent"}]})
    await machine.prepare(order(spec))
    assert not vnc.exists()
    assert conf(host)["pci.0.18.0.port.0.path"] == f"{host.directory()}/vtcon0.sock"
    vnc.write_text("precious")

    with pytest.raises(HostError, match=rf"^{vnc} is no socket, and one has to be made there: remove it$"):
        await machine.prepare(order(spec))
    assert vnc.read_text() == "precious"


async def test_uefi_variables_are_the_guests_own(host: OneHost, machine: GuestMachine) -> None:
    """The template is copied once, for root alone; what the guest has written stays."""
    await machine.prepare(order(guest()))
    path = host.db / "vars" / "web.fd"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"template", 0o600)
    path.write_bytes(b"boot order")
    await machine.prepare(order(guest()))

    assert path.read_bytes() == b"boot order"
    assert conf(host)["bootvars"] == conf(host)["lpc.bootvars"] == str(path)
    assert conf(host)["bootrom"] == f"{host.root}/share/uefi-firmware/BHYVE_UEFI.fd"


async def test_firmware_without_a_template(host: OneHost, machine: GuestMachine) -> None:
    """An old package without variables does not keep a guest down; it is warned."""
    (host.root / "share" / "uefi-firmware" / "BHYVE_UEFI_VARS.fd").unlink()
    prepared = await machine.prepare(order(guest()))

    assert prepared.warnings == (
        f"{host.root}/share/uefi-firmware/BHYVE_UEFI_VARS.fd does not exist: the guest forgets its boot order when it is powered off",
    )
    assert "bootvars" not in conf(host)


async def test_slots_and_addresses_stay(host: OneHost, machine: GuestMachine) -> None:
    """What the guest's record says is kept, and what is chosen is handed back for it."""
    spec = guest(network=[{"bridge": "lan0"}], disk=[{"path": str(host.disk)}])
    first = await machine.prepare(order(spec))
    moved = {**first.slots, f"disk:{host.disk}": "0:9:0"}
    macs = {"network:0": "58:9c:fc:01:02:03"}
    second = await machine.prepare(order(spec, record=VmRecord(slots=moved, macs=macs)))

    assert (second.slots, second.macs) == (moved, macs)
    assert conf(host)["pci.0.9.0.path"] == str(host.disk)
    assert conf(host)["pci.0.10.0.mac"] == "58:9c:fc:01:02:03"


async def test_a_value_that_cannot_be_written(machine: GuestMachine) -> None:
    """An option that breaks bhyve's tree is the operator's to mend."""
    spec = guest()
    options = type(spec.bhyve.options)({"acpi_tables.x": "1"})
    spec = msgspec.structs.replace(spec, bhyve=msgspec.structs.replace(spec.bhyve, options=options))
    with pytest.raises(HostError, match="acpi_tables") as refused:
        await machine.prepare(order(spec))

    assert refused.value.fatal


# --- swtpm -----------------------------------------------------------------------------------------------------------------------

SWTPM = """
for word; do case $word in type=unixio,path=*) s=${word#*path=}; s=${s%%,*};; esac; done
echo $$ >$HERE/swtpm.pid
exec $PYTHON -c 'import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(1000)' $s "path=$s,"
"""


def write_swtpm(host: OneHost, text: str = SWTPM) -> None:
    host.scripts.write("swtpm", f"HERE={host.root} PYTHON={sys.executable}\n{text}")


async def test_a_tpm_lives_as_long_as_its_run(host: OneHost, machine: GuestMachine) -> None:
    """swtpm listens before bhyve starts, does not keep the run alive, and ends with its clean-up. Its state stays."""
    write_swtpm(host)
    await start(machine, guest(do="exit 0", tpm={}))
    pid = int((host.root / "swtpm.pid").read_text())
    assert (await end_of(machine)).status == 0
    assert is_alive(pid)
    await machine.clean(final=True)

    assert not is_alive(pid)
    assert not (host.directory() / "tpm.sock").exists()
    assert (host.db / "tpm" / "web").stat().st_mode & 0o777 == 0o700
    assert conf_tpm(host) == f"swtpm socket --tpm2 --terminate --server type=unixio,path={host.directory()}/tpm.sock,mode=0600 " + (
        f"--tpmstate dir={host.db}/tpm/web --flags not-need-init"
    )


def conf_tpm(host: OneHost) -> str:
    return next(call for call in host.scripts.calls if call.startswith("swtpm"))


async def test_a_tpm_of_a_dead_daemon_is_ended(host: OneHost) -> None:
    """The next daemon finds it by its socket."""
    write_swtpm(host)
    first = host.daemon().machine("web")
    await start(first, guest(tpm={}))
    pid = await until_pid(host)
    tpm = int((host.root / "swtpm.pid").read_text())
    host.die(first)
    second = host.daemon().machine("web")
    assert second.find() is not None
    os.kill(pid, 9)
    await end_of(second)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_reap, tpm)  # it is a child of this process, not of init
            await second.clean(final=True)

    assert not is_alive(tpm)


async def _reap(pid: int) -> None:
    await trio.to_thread.run_sync(os.waitpid, pid, 0)


async def test_a_tpm_that_does_not_start(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends at once, or never listens, fails the start with a sentence and leaves no process."""
    write_swtpm(host, "echo no key >&2; exit 1")
    with pytest.raises(HostError, match=r"^swtpm ended at once; what it said is in the guest's bhyve log$"):
        await machine.prepare(order(guest(tpm={})))
    assert "no key" in (host.log / "web.bhyve.log").read_text()
    monkeypatch.setattr(swtpm, "_START_S", 0.3)
    write_swtpm(host, "echo $$ >$HERE/swtpm.pid; exec sleep 1000")
    with trio.fail_after(10), pytest.raises(HostError, match=r"^swtpm did not listen within 0.3 s$"):
        await machine.prepare(order(guest(tpm={})))

    assert not is_alive(int((host.root / "swtpm.pid").read_text()))
