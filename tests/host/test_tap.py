"""Tap interfaces against a stand-in ifconfig that behaves as contract 5.3, 5.4 and 8.9 say."""

import socket
from pathlib import Path

import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.host.tap import TapExists, Taps
from tests.host.scripts import Scripts, write_ifconfig


@pytest.fixture
def state(scripts: Scripts) -> Path:
    return write_ifconfig(scripts, "lan0", "wan0")


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    path = tmp_path / "dev"
    path.mkdir()
    return path


@pytest.fixture
def taps(scripts: Scripts, state: Path, dev: Path) -> Taps:
    return Taps(scripts.tools, dev=str(dev))


def test_numbers_are_the_lowest_that_nobody_has(taps: Taps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps of the system and of other guests' ledgers are passed over."""
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo0"), (2, "tap1000"), (3, "tap1003")])

    assert taps.choose(3, {"tap1001"}) == ("tap1002", "tap1004", "tap1005")


def test_running_out_of_numbers_is_said(scripts: Scripts) -> None:
    """When no number is left the start fails with a sentence, not with a wrong tap."""
    with pytest.raises(HostError, match=r"^no tap number is free between 32767 and 32767$"):
        Taps(scripts.tools, first=0x7FFF).choose(2, ())


async def test_a_tap_is_made_signed_joined_and_up(taps: Taps, scripts: Scripts) -> None:
    """`create` is a call of its own; afterwards the tap is ours, up, and a member of its bridge: three processes in all."""
    with trio.fail_after(10):
        await taps.create("tap1000", description="bhyved web/0", bridge="lan0", mtu=9000)
        calls = list(scripts.calls)
        bridge, tap = await taps.look("lan0"), await taps.look("tap1000")

    assert calls == [
        "ifconfig tap1000 create",
        "ifconfig tap1000 description bhyved web/0 group bhyved mtu 9000 up",
        "ifconfig lan0 addm tap1000",
    ]
    assert bridge is not None
    assert bridge.members == ("tap1000",)
    assert tap is not None
    assert (tap.description, tap.groups, tap.mtu, tap.is_up) == ("bhyved web/0", ("tap", "bhyved"), 9000, True)


async def test_a_foreign_tap_is_not_taken_over(taps: Taps, scripts: Scripts, state: Path) -> None:
    """A tap that somebody made since the choice is left as it is, and not chosen again."""
    scripts.tools.ask(["ifconfig", "tap1000", "create"])
    before = (state / "tap1000.if").read_text()

    with trio.fail_after(10), pytest.raises(TapExists, match=r"^tap1000 exists already and is not ours$"):
        await taps.create("tap1000", description="bhyved web/0", bridge="lan0")

    assert (state / "tap1000.if").read_text() == before
    assert taps.choose(1, ()) == ("tap1001",)


def test_taps_of_other_network_stacks_are_passed_over(taps: Taps, dev: Path) -> None:
    """A jail with a stack of its own has the kernel's numbers, and sees of other taps their nodes (contract 7)."""
    for name in ("tap1000", "tap1001", "tty"):
        (dev / name).touch()

    assert taps.choose(1, ()) == ("tap1002",)


async def test_a_tap_of_another_network_stack_is_taken(taps: Taps, scripts: Scripts) -> None:
    """Where its node is hidden, too: the kernel says that the number is, and ifconfig knows no such interface."""
    scripts.write("ifconfig", '[ "$2" = create ] && { echo "ifconfig: SIOCIFCREATE2 ($1): File exists" >&2; exit 1; }; exit 1')

    with trio.fail_after(10), pytest.raises(TapExists):
        await taps.create("tap1000", description="bhyved web/0", bridge="lan0")

    assert taps.choose(1, ()) == ("tap1001",)


async def test_a_jail_that_may_make_no_interfaces(taps: Taps, scripts: Scripts) -> None:
    """It is said what its jail.conf lacks (contract 7)."""
    scripts.write("ifconfig", 'echo "ifconfig: SIOCIFCREATE2 ($1): Operation not permitted" >&2; exit 1')

    with trio.fail_after(10), pytest.raises(HostError, match=r"not permitted: a jail makes interfaces only with vnet in its jail\.conf"):
        await taps.create("tap1000", description="bhyved web/0", bridge="lan0")


async def test_a_missing_bridge_is_named(taps: Taps) -> None:
    """A bridge that does not exist is said in so many words."""
    with trio.fail_after(10), pytest.raises(HostError, match=r'^bridge "lan7" does not exist: make it '):
        await taps.create("tap1000", description="bhyved web/0", bridge="lan7")


async def test_a_tap_that_is_on_its_bridge_already_is_fine(taps: Taps, scripts: Scripts) -> None:
    """When rc.conf's autobridge was faster, the tap is where it should be and the start goes on."""
    scripts.tools.ask(["ifconfig", "tap1000", "create"])
    scripts.tools.ask(["ifconfig", "lan0", "addm", "tap1000"])

    with trio.fail_after(10):
        await taps._join("tap1000", "lan0", None)


async def test_a_tap_of_another_bridge_is_refused(taps: Taps, scripts: Scripts) -> None:
    """A tap cannot be on two bridges: the sentence has the tap, the bridge and ifconfig's reason."""
    scripts.tools.ask(["ifconfig", "tap1000", "create"])
    scripts.tools.ask(["ifconfig", "wan0", "addm", "tap1000"])

    with (
        trio.fail_after(10),
        pytest.raises(HostError, match=r'^tap1000 cannot join bridge "lan0": `ifconfig lan0 addm tap1000` failed .*Device busy$'),
    ):
        await taps._join("tap1000", "lan0", None)


async def test_destroying(taps: Taps, state: Path) -> None:
    """Our tap is gone after the destroy; destroying it again is no error."""
    with trio.fail_after(10):
        await taps.create("tap1000", description="bhyved web/0", bridge=None)

        assert await taps.destroy("tap1000", "bhyved web/0") is True
        assert await taps.destroy("tap1000", "bhyved web/0") is False
    assert not (state / "tap1000.if").exists()


async def test_an_open_tap_is_not_destroyed(taps: Taps, scripts: Scripts, state: Path) -> None:
    """While a process has the tap open ifconfig destroy, which would hang, is not even called."""
    with trio.fail_after(10):
        await taps.create("tap1000", description="bhyved web/0", bridge=None)
        (state / "tap1000.pid").write_text("4711")

        with pytest.raises(HostError, match=r"^tap1000 is still open by process 4711$"):
            await taps.destroy("tap1000", "bhyved web/0")

    assert not [call for call in scripts.calls if "destroy" in call]


async def test_a_foreign_tap_is_not_destroyed(taps: Taps, scripts: Scripts, state: Path) -> None:
    """A tap whose description is not the one we wrote belongs to somebody else by now."""
    scripts.tools.ask(["ifconfig", "tap1000", "create", "description", "vm-bhyve db"])

    with trio.fail_after(10):
        assert await taps.destroy("tap1000", "bhyved web/0") is False

    assert (state / "tap1000.if").exists()


async def test_a_tap_that_was_made_but_not_signed_is_destroyed(taps: Taps, scripts: Scripts, state: Path) -> None:
    """A daemon killed between create and signature leaves a bare tap, which the ledger's finder may destroy."""
    scripts.tools.ask(["ifconfig", "tap1000", "create"])

    with trio.fail_after(10):
        assert await taps.destroy("tap1000", "bhyved web/0") is True

    assert not (state / "tap1000.if").exists()


async def test_a_query_that_fails_is_not_taken_for_absence(taps: Taps, scripts: Scripts) -> None:
    """When ifconfig dies instead of answering, the tap is not reported as gone."""
    scripts.write("ifconfig", "kill -9 $$")

    with trio.fail_after(10), pytest.raises(HostError, match=r"SIGKILL"):
        await taps.destroy("tap1000", "bhyved web/0")


async def test_ours_are_found_by_group(taps: Taps, scripts: Scripts) -> None:
    """Leaked taps are found by our group, with their descriptions; others are not among them."""
    with trio.fail_after(10):
        await taps.create("tap1000", description="bhyved web/0", bridge="lan0")
        await taps.create("tap1001", description="bhyved db/0", bridge="lan0")
        scripts.tools.ask(["ifconfig", "tap1002", "create"])
        found = await taps.ours()

    assert {name: tap.description for name, tap in found.items()} == {"tap1000": "bhyved web/0", "tap1001": "bhyved db/0"}
