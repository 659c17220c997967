"""The host as a whole: its facts, its modules, and what earlier runs left on it."""

import os
from pathlib import Path

import pytest
import trio

from bhyved.core.assigned import Target
from bhyved.core.errors import HostError
from bhyved.core.room import HostMemory
from bhyved.host.facts import read_facts
from tests.host.onehost import OneHost, end_of, guest, order, start, until_booted, until_pid
from tests.host.scripts import Scripts

# --- facts -----------------------------------------------------------------------------------------------------------------------

SYSCTL = """
case "$*" in
"-b kern.boot_id") printf '\\001\\002\\003\\004\\005\\006\\007\\010\\000\\n\\013\\014\\015\\016\\017\\377';;
"-n kern.osreldate") echo {release};;
"-n hw.machine_arch") echo {arch};;
"-n kern.hostuuid") echo 8e5b1c2a-0000-0000-0000-000000000001;;
*) exit 1;;
esac
"""


@pytest.mark.parametrize(
    ("release", "arch", "target"),
    [
        ("1402000", "amd64", Target("14", "amd64")),
        ("1500068", "aarch64", Target("15", "arm64")),
        ("1600005", "amd64", Target("main", "amd64")),
    ],
)
def test_facts(tmp_path: Path, release: str, arch: str, target: Target) -> None:
    """Boot id (16 raw bytes, newlines and NULs included), release and architecture are what sysctl says."""
    scripts = Scripts(tmp_path)
    scripts.write("sysctl", SYSCTL.format(release=release, arch=arch))
    facts = read_facts(scripts.tools)

    assert facts.target == target
    assert facts.boot == "0102030405060708000a0b0c0d0e0fff"
    assert facts.host_id == "8e5b1c2a-0000-0000-0000-000000000001"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exit 1", "`sysctl -b kern.boot_id` failed with exit status 1"),
        (SYSCTL.format(release="x", arch="amd64"), "kern.osreldate is 'x', which is no number"),
        (SYSCTL.format(release="1500068", arch="riscv64"), "hw.machine_arch is 'riscv64'"),
        (SYSCTL.format(release="1500068", arch="amd64").replace("\\377", ""), "kern.boot_id has 15 bytes and not 16"),
    ],
)
def test_facts_that_are_no_use(tmp_path: Path, text: str, says: str) -> None:
    """A host that does not say what it is cannot be served: one sentence, and no daemon."""
    scripts = Scripts(tmp_path)
    scripts.write("sysctl", text)
    with pytest.raises(HostError) as refused:
        read_facts(scripts.tools)

    assert str(refused.value).startswith(says)
    assert refused.value.fatal


# --- leftovers -------------------------------------------------------------------------------------------------------------------


async def test_taps_that_nobody_has(host: OneHost) -> None:
    """Taps of our group that no ledger of this boot names are destroyed; those of runs, and those of others, stay."""
    first = host.daemon()
    await start(first.machine("web"), guest(network=[{"bridge": "lan0"}]))
    await until_pid(host)
    host.scripts.tools.ask(["ifconfig", "tap1001", "create", "description", "vm-bhyve db"])
    host.scripts.tools.ask(["ifconfig", "tap1002", "create"])
    host.scripts.tools.ask(["ifconfig", "tap1002", "description", "bhyved old/0", "group", "bhyved"])
    host.die(first.machine("web"))
    with trio.fail_after(20):
        found = await host.daemon().reconcile(["web"])

    assert found.removed == ('the tap tap1002 ("bhyved old/0"), which no run had',)
    assert found.problems == ()
    assert sorted(path.stem for path in host.interfaces.glob("tap*.if")) == ["tap1000", "tap1001"]


async def test_taps_of_another_boots_ledger(host: OneHost) -> None:
    """A ledger of another boot protects nothing."""
    await host.daemon(boot="e" * 32).machine("web").prepare(order(guest(network=[{"bridge": "lan0"}])))
    with trio.fail_after(20):
        found = await host.daemon().reconcile([])

    assert [text.split()[2] for text in found.removed] == ["tap1000"]


async def test_a_leftover_that_cannot_be_removed(host: OneHost) -> None:
    """It is told, and the rest is removed all the same."""
    for name in ("tap1000", "tap1001"):
        host.scripts.tools.ask(["ifconfig", name, "create"])
        host.scripts.tools.ask(["ifconfig", name, "description", "bhyved old/0", "group", "bhyved"])
    (host.interfaces / "tap1000.pid").write_text("99")
    with trio.fail_after(20):
        found = await host.daemon().reconcile([])

    assert found.problems == ("tap1000 is still open by process 99",)
    assert [path.stem for path in host.interfaces.glob("tap*.if")] == ["tap1000"]


async def test_nodes_that_nobody_has(host: OneHost) -> None:
    """A node of a configured guest without a bhyve is destroyed; with one the guest is foreign; other names are not ours to touch."""
    host.node().parent.mkdir()
    for name in ("web", "db", "others", "mine"):
        host.node(name).touch()
    host.scripts.write("ps", "echo '4711 0 0 bhyve: db (bhyve)'; echo '4712 0 0 bhyve: nodeless (bhyve)'")
    daemon = host.daemon()
    await daemon.machine("mine").prepare(order(guest("mine")))
    host.node("mine").touch()
    with trio.fail_after(20):
        found = await daemon.reconcile(["web", "db", "mine", "nodeless"])

    assert found.removed == ("the node web, which no bhyve had",)
    assert dict(found.foreign) == {"db": 4711, "nodeless": 4712}
    assert sorted(os.listdir(host.node().parent)) == ["db", "mine", "others"]


async def test_a_guest_without_a_ledger_that_lives_is_not_foreign(host: OneHost) -> None:
    """Somebody removed run.toml: the guest is held by its FIFO, and its node is not destroyed."""
    first = host.daemon().machine("web")
    await start(first, guest())
    pid = await until_booted(host)
    host.die(first)
    (host.directory() / "run.toml").unlink()
    daemon = host.daemon()
    with trio.fail_after(20):
        reconciled = await daemon.reconcile(["web"])
    found = daemon.machine("web").find()

    assert (reconciled.foreign, reconciled.removed) == ({}, ())
    assert host.node().exists()
    assert found is not None
    assert (found.pid, found.spec) == (pid, None)
    os.kill(pid, 9)
    assert (await end_of(daemon.machine("web"))).status == 137


async def test_a_host_that_cannot_be_asked(host: OneHost) -> None:
    """When ps or ifconfig do not answer, nothing is removed and both are told."""
    host.node().parent.mkdir()
    host.node().touch()
    for name in ("ps", "ifconfig"):
        host.scripts.write(name, "exit 7")
    with trio.fail_after(20):
        found = await host.daemon().reconcile(["web"])

    assert [text.split(":")[0] for text in found.problems] == [
        "nodes left over could not be looked for",
        "taps left over could not be looked for",
    ]
    assert host.node().exists()


async def test_ledgers(host: OneHost) -> None:
    """Guests with a ledger of this boot are named, configured or not."""
    await host.daemon().machine("web").prepare(order(guest()))
    await host.daemon(boot="e" * 32).machine("old").prepare(order(guest("old")))

    assert host.daemon().ledgers() == ["web"]


def test_one_machine_a_guest(host: OneHost) -> None:
    """Everybody gets the same one."""
    daemon = host.daemon()

    assert daemon.machine("web") is daemon.machine("web")
    assert daemon.boot == "0123456789abcdef" * 2


# --- memory ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "memory"),
    [
        (
            "echo 'hw.physmem: 17091067904'; echo 'hw.pagesize: 16384'; echo 'vm.max_user_wired: 1000'",
            HostMemory(total_bytes=17091067904, wired_bytes=16384000, page_bytes=16384),
        ),
        (
            "echo 'hw.physmem: 4294967296'; echo 'vm.max_user_wired: -1'; echo \"sysctl: unknown oid 'hw.pagesize'\" >&2; exit 1",
            HostMemory(total_bytes=4 << 30),
        ),
        ("exit 1", HostMemory()),
    ],
    ids=["all", "no limit", "nothing"],
)
async def test_memory(host: OneHost, says: str, memory: HostMemory) -> None:
    """In bytes, pages multiplied; -1 is no limit, and what the host does not say limits nobody."""
    host.scripts.write("sysctl", says)
    with trio.fail_after(20):
        assert await host.daemon().memory() == memory


# --- modules ---------------------------------------------------------------------------------------------------------------------


async def test_modules_that_are_there_are_not_loaded(host: OneHost) -> None:
    """kldstat is asked first: `kldload -n` fails for what is in the kernel itself."""
    host.scripts.write("kldstat", "[ $3 = vmm ]")
    host.scripts.write("kldload", "exit 0")
    with trio.fail_after(20):
        await host.daemon().load_modules()

    assert host.scripts.calls[-3:] == ["kldstat -q -m vmm", "kldstat -q -m nmdm", "kldload -n nmdm"]


async def test_a_module_that_does_not_load(host: OneHost) -> None:
    """The sentence has kldload's own words, and where to look."""
    host.scripts.write("kldstat", "exit 1")
    host.scripts.write("kldload", 'echo "kldload: can\'t load vmm: Operation not supported" >&2; exit 1')
    with trio.fail_after(20), pytest.raises(HostError, match=r"can't load vmm: Operation not supported; is virtualisation on"):
        await host.daemon().load_modules()


async def test_a_module_that_a_jail_may_not_load(host: OneHost) -> None:
    """It is told whose job that is, as no dmesg would."""
    host.scripts.write("kldstat", "exit 1")
    host.scripts.write("kldload", 'echo "kldload: can\'t load vmm: Operation not permitted" >&2; exit 1')
    with (
        trio.fail_after(20),
        pytest.raises(HostError, match=r"not permitted; in a jail it is for the host to load: kldload vmm, and kld_list "),
    ):
        await host.daemon().load_modules()


async def test_a_missing_pair_loads_nmdm(host: OneHost) -> None:
    """nmdm is loaded without a question, and a failure counts only when the module is not there either."""
    host.scripts.write("kldload", "exit 1")
    host.scripts.write("kldstat", "exit 0")
    with trio.fail_after(20):
        await host.daemon().load_nmdm()
    host.scripts.write("kldstat", "exit 1")
    with trio.fail_after(20), pytest.raises(HostError, match="kldload -n nmdm"):
        await host.daemon().load_nmdm()
