"""What ps shows, and whose process it is."""

from pathlib import Path

import pytest
import trio

from bhyved.core.errors import HostError, Stuck
from bhyved.host.processes import Process, Processes, guest_of, has_title, parse_ps, seen_in
from tests.host.scripts import Scripts


@pytest.mark.parametrize(
    ("command", "guest"),
    [
        ("bhyve: web (bhyve)", "web"),
        ("bhyve: web", "web"),
        ("/usr/sbin/bhyve -k /var/run/bhyved/vm/web/bhyve.conf web", "web"),
        ("bhyve -A -H -s 3,virtio-blk,/vm/db.img db", "db"),
        ("bhyveload -c /dev/nmdm-web.1A -m 1G web", "web"),
        ("/usr/local/sbin/grub-bhyve -M 1G web", "web"),
        ("/bin/sh /lab/bin/bhyve -k x web", "web"),
        ("/bin/sh -c trap '' TERM keeper ignore /r/pid /r/exit /usr/sbin/bhyve -k /r/bhyve.conf web", None),
        ("grep bhyve web", None),
        ("bhyvectl --vm=web --destroy", None),
        ("bhyved: web", None),
        ("bhyve", None),
        ("[bhyve]", None),
        ("", None),
    ],
)
def test_whose_process(command: str, guest: str | None) -> None:
    """A bhyve or a loader is its guest's, by title or by the last word of its argv; nothing else is anybody's."""
    assert guest_of(command) == guest


def test_the_whole_name_counts() -> None:
    """A guest whose name begins like another's is another guest."""
    assert [has_title(command, "web") for command in ("bhyve: web", "bhyve: web1", "bhyve: we", "xbhyve: web")] == [
        True,
        False,
        False,
        False,
    ]


def test_a_table() -> None:
    """Numbers are set right-aligned; lines that do not begin with three are passed over."""
    text = "   PID  UID JID COMMAND\n    1    0   0 /sbin/init\n 4711 1001  12 bhyve: web (bhyve)\n\n 12 0 0\n 13 0 bhyve: web\n"
    assert parse_ps(text) == {1: Process(0, 0, "/sbin/init"), 4711: Process(1001, 12, "bhyve: web (bhyve)"), 12: Process(0, 0, "")}


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_process_is_one_line(end: str) -> None:
    """Whatever is in its words: a user's process must not bring a line of root's with it."""
    assert parse_ps(f" 4711 1001   0 sh{end} 4712    0   0 bhyve: web\n").keys() == {4711}


@pytest.mark.parametrize(
    ("jail", "ours"),
    [(0, ["root's", "daemon's"]), (7, ["jailed"])],
    ids=["daemon of the host", "daemon of a jail"],
)
def test_only_processes_of_root_and_of_ours_count(jail: int, ours: list[str]) -> None:
    """Whoever calls a process `bhyve: web` is believed if that is root or the daemon's own user, in the daemon's own jail."""
    table = {
        1: Process(1001, jail, "bhyved"),
        11: Process(0, 0, "bhyve: root's (bhyve)"),
        12: Process(1001, 0, "/usr/sbin/bhyve -k /r daemon's"),
        13: Process(1002, 0, "bhyve: another's (bhyve)"),
        14: Process(0, 7, "bhyve: jailed (bhyve)"),
    }
    seen = seen_in(table, 1, 1001)

    assert list(seen.guests) == ours
    assert all(seen.holder(name, None) is not None for name in ours)


def test_a_stranger_is_believed_by_whose_the_node_is() -> None:
    """A VM of a jail, or of another user, is one where /dev/vmm has its node, of the same user; else anybody could keep a guest down."""
    table = {1: Process(0, 0, "bhyved"), 13: Process(1002, 0, "bhyve: web (bhyve)"), 14: Process(0, 7, "bhyve: db (bhyve)")}
    seen = seen_in(table, 1, 0)

    assert [seen.holder("web", owner) for owner in (None, 0, 1001, 1002)] == [None, None, None, 13]
    assert [seen.holder("db", owner) for owner in (None, 0, 1002)] == [None, 14, None]
    assert not seen.is_guest(13, "web")


def test_looks_are_shared_while_they_are_fresh(tmp_path: Path) -> None:
    """A look that is young enough serves again; one that must be newer than the question does not."""
    scripts = Scripts(tmp_path)
    scripts.write("ps", "echo '1 0 0 bhyve: web'")
    processes = Processes(scripts.tools)

    assert processes.look().guests == {"web": 1}
    processes.look(60.0)
    assert len(scripts.calls) == 1
    processes.look()
    assert len(scripts.calls) == 2


def test_a_ps_that_fails_is_not_an_empty_host(tmp_path: Path) -> None:
    """Without an answer nobody is declared dead."""
    scripts = Scripts(tmp_path)
    scripts.write("ps", "exit 1")
    with pytest.raises(HostError, match="failed with exit status 1"):
        Processes(scripts.tools).look()


async def test_many_who_look_at_once_share_a_look(tmp_path: Path) -> None:
    """Looks that are asked for while one is under way cost no more than one after it, and every one of them sees what began since."""
    scripts = Scripts(tmp_path)
    scripts.write("ps", "echo '1 0 0 bhyve: web'")
    processes, seen = Processes(scripts.tools), []

    async def look(max_age_s: float) -> None:
        seen.append((await processes.look_soon(max_age_s)).guests)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(look, 10.0)

    assert seen == [{"web": 1}] * 20
    assert len(scripts.calls) == 1


async def test_a_ps_that_hangs_says_nothing_of_a_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the kernel does not let go is a failed look, not a guest that is stuck."""
    scripts = Scripts(tmp_path)
    scripts.write("ps", "exit 0")

    async def hang(*_: object, **__: object) -> None:
        raise Stuck("`ps` (pid 7) is stuck in the kernel")

    monkeypatch.setattr("bhyved.host.processes.run_tool", hang)
    with pytest.raises(HostError, match="is stuck in the kernel") as told:
        await Processes(scripts.tools).look_soon()

    assert not isinstance(told.value, Stuck)
