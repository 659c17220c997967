"""A person at a console: what is on the screen, what the guest gets, and what the terminal is like afterwards."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest

from bhyved.core.frames import Kind
from tests.ctl.conftest import Vmctl
from tests.ctl.played import PATIENCE_S, PlayedDaemon, Refusal, playing, refuse
from tests.ctl.playedconsole import PlayedConsole
from tests.ctl.terminals import Person, person
from tests.waiting import until


@contextmanager
def at_console(console: PlayedConsole, *words: str, term: str = "dumb") -> Iterator[tuple[Person, PlayedDaemon]]:
    with playing(console_attach=console.attach) as daemon, person(daemon.path, "console", "a", *words, term=term) as somebody:
        console.attached()
        yield somebody, daemon


def test_a_person_types_and_leaves() -> None:
    """What the guest prints is on the screen as it is, what is typed goes to it, `~.` leaves, and the terminal is as before."""
    console = PlayedConsole()
    with at_console(console) as (somebody, _):
        somebody.sees(rb"\[a com1: ~\. leaves, ~\? helps\]")
        console.write(b"login: ")
        somebody.sees(b"login: ")
        somebody.types(b"root\r")
        assert console.typed(5) == b"root\r"
        assert somebody.is_raw
        somebody.types(b"\x03\x1a\r~~\r")
        assert console.typed(5) == b"\x03\x1a\r~\r"
        somebody.types(b"~.")

        assert somebody.status() == 0
        assert somebody.settings == somebody.before
        assert b"the guest runs on" in somebody.screen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    """The terminal is given back, and the status is that of a signal."""
    with at_console(PlayedConsole()) as (somebody, _):
        somebody.sees(b"leaves")
        somebody.signals(number)

        assert somebody.status() == 128 + number
        assert somebody.settings == somebody.before


def test_the_terminal_is_given_back_when_the_daemon_refuses() -> None:
    """A refusal is printed as of any other verb, with its status."""

    with playing(console_attach=refuse(-32001, "not-permitted", "you may not")) as daemon, person(daemon.path, "console", "a") as somebody:
        assert somebody.status() == 77
        assert somebody.settings == somebody.before
        assert b"vmctl: you may not\r\n" in somebody.screen


def test_a_daemon_that_comes_back() -> None:
    """The line goes on with the next byte: nothing is lost, nothing comes twice, and typing works again."""
    console = PlayedConsole(b"before")
    with at_console(console, "--since", "all") as (somebody, daemon):
        somebody.sees(b"before")
        console.write(b" one")
        somebody.sees(b" one")
        daemon.vanish(keep_socket=True)
        somebody.sees(b"waiting for bhyved")
        assert somebody.is_raw
        somebody.types(b"x")
        somebody.sees(b"what you type is lost")
        console.kept += b" two"
        daemon.path.unlink()
        daemon.listen()
        somebody.sees(b"bhyved is back")
        somebody.sees(b" two")
        console.write(b" three")
        somebody.sees(b" three")
        somebody.types(b"y\r~.")

        assert somebody.status() == 0
        assert somebody.settings == somebody.before
        assert console.typed(2) == b"y\r"
        assert [(params["since"], params.get("stream")) for params in console.asked] == [("all", None), (10, "s1")]
        assert re.sub(rb"\r\n\[.*?\]\r\n", b"", somebody.screen, flags=re.DOTALL) == b"before one two three"


def test_leaving_while_there_is_no_daemon() -> None:
    """`~.` works without one, and the terminal is given back."""
    with at_console(PlayedConsole()) as (somebody, daemon):
        somebody.sees(b"leaves")
        daemon.vanish()
        somebody.sees(b"waiting for bhyved")
        somebody.types(b"\r~.")

        assert somebody.status() == 0
        assert somebody.settings == somebody.before


def test_a_guest_that_is_no_longer_there_when_the_daemon_comes_back() -> None:
    """There is nothing to wait for: the refusal is printed."""

    with at_console(PlayedConsole()) as (somebody, daemon):
        somebody.sees(b"leaves")
        refusal = refuse(-32002, "no-such-guest", 'there is no guest "a"')
        daemon.handlers |= dict.fromkeys(("console.attach", "daemon.info", "vm.list"), refusal)
        daemon.vanish()
        daemon.listen()

        assert somebody.status() == 1
        assert b'there is no guest "a"' in somebody.screen


def test_a_daemon_that_is_not_ready_yet_is_asked_again() -> None:
    """The first answer of a daemon that has just begun may be that the history is not open."""
    console = PlayedConsole()
    refusals = [Refusal(-32003, "not-ready", "not yet"), Refusal(-32003, "not-ready", "not yet")]

    def hesitate(params: dict[str, object]) -> object:
        if refusals:
            raise refusals.pop()
        return console.attach(params)

    with at_console(console) as (somebody, daemon):
        somebody.sees(b"leaves")
        daemon.handlers["console.attach"] = hesitate
        daemon.vanish()
        daemon.listen()
        somebody.sees(b"bhyved is back")
        assert not refusals


def test_what_becomes_of_the_guest_and_of_others_is_said() -> None:
    """Ends, starts, other people, gaps: on a line of their own, harmless whatever they say."""
    console = PlayedConsole(running=False, viewers=["bob (uid 7, pid 1)"], writer="bob (uid 7, pid 1)", problem="the line is not open")
    with at_console(console) as (somebody, _):
        somebody.sees(rb"a is not running.*the line is not open.*also here: bob.*bob \(uid 7, pid 1\) has the keyboard; ~w takes it")
        console.tell("boot", text="run 7 by root")
        somebody.sees(rb"\[a starts: run 7 by root\]")
        console.tell("exit", text="the guest\x1b[2J rebooted")
        somebody.sees(rb"\[a is down: the guest rebooted\]")
        console.tell("attach", text="carol")
        somebody.sees(rb"\[carol has come\]")
        console.lose(4096, "slow")
        somebody.sees(rb"\[4096 bytes of output are missing here: slow\]")
        console.tell("dropped", size=2048, why="the guest does not read")
        somebody.sees(rb"\[2K of what you typed were not taken: the guest does not read\]")
        console.tell("writer", writer="carol", you=False)
        somebody.sees(rb"\[carol has the keyboard\]")
        console.write(b"still here")
        somebody.sees(b"still here")


def test_taking_the_keyboard() -> None:
    """Refused keystrokes are explained once; `~w` asks for the keyboard, and getting it is said."""
    console = PlayedConsole(writer="bob")
    with at_console(console) as (somebody, _):
        somebody.sees(b"takes it")
        console.tell("refused", why="busy", writer="bob")
        console.tell("refused", why="busy", writer="bob")
        console.write(b"!")
        somebody.sees(b"!")
        somebody.types(b"\r~w")
        assert console.typed(1) == b"\r"
        claim = console.frames.get(timeout=PATIENCE_S)
        console.tell("writer", writer="me", you=True)
        somebody.sees(b"you have the keyboard")

        assert (claim.kind, claim.payload) == (Kind.WRITE, b"steal")
        assert somebody.screen.count(b"what you type goes nowhere") == 1


def test_help_break_and_another_escape_character() -> None:
    """`~?` shows what there is, `~#` says that no break can be sent; -e chooses another character, or none."""
    with at_console(PlayedConsole(), "-e", "^]") as (somebody, _):
        somebody.sees(rb"\^\]\. leaves")
        somebody.types(b"\x1d?")
        somebody.sees(rb"\^\]w   take the keyboard")
        somebody.types(b"\x1d#")
        somebody.sees(b"cannot carry a break")
        somebody.types(b"\x1d.")
        assert somebody.status() == 0
    console = PlayedConsole()
    with at_console(console, "--escape", "none") as (somebody, _):
        somebody.sees(rb"\[a com1\]")
        somebody.types(b"~.")
        assert console.typed(2) == b"~."


def test_a_read_only_session() -> None:
    """Nothing is sent, and that is said once."""
    console = PlayedConsole()
    with at_console(console, "--read-only", "-p", "com2") as (somebody, _):
        somebody.sees(b"a com2")
        somebody.types(b"ls\r~w")
        somebody.sees(b"read-only")
        somebody.sees(b"read-only")
        somebody.types(b"\r~.")

        assert somebody.status() == 0
        assert console.nothing_typed()
        assert console.asked[0] == {"name": "a", "port": "com2", "read-only": True}


@pytest.mark.parametrize(
    ("word", "sent"),
    [("boot", {"since": "boot"}), ("4096", {"since": 4096}), ("-20", {"lines": 20}), ("all", {"since": "all"})],
)
def test_where_it_begins(word: str, sent: dict[str, object]) -> None:
    """--since is passed on as the wire has it."""
    console = PlayedConsole()
    with at_console(console, "--since", word, "--steal") as (somebody, _):
        somebody.sees(b"leaves")
    assert console.asked == [{"name": "a", "steal": True, **sent}]


def test_a_replay_asks_the_terminal_nothing() -> None:
    """What a guest once asked of a terminal is not asked again: the answer would be typed into its shell. Live, it is."""
    console = PlayedConsole(b"old\x1b[6n\x1b[c\x1b]11;?\x07 text\x1b[1m")
    with at_console(console, "--since", "all") as (somebody, _):
        somebody.sees(b"old text\x1b\\[1m")
        console.write(b"new\x1b[6n")
        somebody.sees(b"new\x1b\\[6n")


def test_a_terminal_that_stalls_can_still_be_left() -> None:
    """Nobody reads the screen and the guest floods it: `~.` is heard all the same, and memory does not grow."""
    console = PlayedConsole()
    with at_console(console) as (somebody, _):
        somebody.sees(b"leaves")
        for _ in range(4):
            console.write(b"x" * (1 << 16))
        somebody.types(b"\r~.")
        assert somebody.process.wait(PATIENCE_S) == 0
        assert somebody.settings == somebody.before


def test_the_title_is_set_and_restored_where_terminals_have_one() -> None:
    """Pushed and popped, so that the shell's own comes back; elsewhere nothing is printed."""
    with at_console(PlayedConsole(), term="xterm-256color") as (somebody, _):
        somebody.sees(rb"^\x1b\[22;2t\x1b\]2;vmctl: a\x07")
        somebody.types(b"~.")
        somebody.status()
        assert somebody.screen.endswith(b"\x1b[23;2t")
        assert b"\x1b[?25h" not in somebody.screen
    with at_console(PlayedConsole(), term="vt100") as (somebody, _):
        somebody.sees(b"leaves")
        somebody.types(b"~.")
        somebody.status()
        assert b"\x1b" not in somebody.screen


def test_what_a_guest_leaves_behind_is_undone() -> None:
    """A hidden cursor, mouse reports and colours are the guest's, not the shell's."""
    console = PlayedConsole()
    with at_console(console) as (somebody, _):
        somebody.sees(b"leaves")
        console.write(b"\x1b[?25l\x1b[31m")
        somebody.sees(b"31m")
        somebody.types(b"\r~.")
        somebody.status()

        assert b"\x1b[?25h" in somebody.screen.rpartition(b"runs on]")[2]


def test_without_a_terminal_it_is_a_pipe() -> None:
    """Standard input goes to the guest as it is, its output to standard output, remarks to standard error; ^C ends it."""
    console = PlayedConsole()
    with playing(console_attach=console.attach) as daemon:
        words = [sys.executable, "-m", "bhyved.cli.ctl", "console", "a", "--socket", str(daemon.path)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"~.\n")
            process.stdin.flush()
            assert console.typed(3) == b"~.\n"
            console.write(b"output\r\n")
            assert process.stdout.read(8) == b"output\r\n"
            process.send_signal(signal.SIGINT)
            out, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()

    assert (out, said, process.returncode) == (b"", b"[a com1]\n", 130)


def test_suspending_under_a_shell() -> None:
    """`~^Z` gives the shell its terminal back, and `fg` goes on where it was."""
    console = PlayedConsole()
    with playing(console_attach=console.attach) as daemon:
        shell = pexpect.spawn("/bin/sh", ["-i"], env={**os.environ, "PS1": "shell> ", "ENV": "", "TERM": "dumb"}, timeout=PATIENCE_S)
        try:
            shell.expect("shell> ")
            shell.sendline(f"{sys.executable} -m bhyved.cli.ctl console a --socket {daemon.path}")
            shell.expect("leaves")
            console.write(b"one")
            shell.expect("one")
            shell.send("\r~\x1a")
            shell.expect("shell> ")
            shell.sendline("echo still $((40 + 2))")
            shell.expect("still 42")
            shell.sendline("fg")
            console.write(b"two")
            shell.expect("two")
            shell.send("\r~.")
            shell.expect("runs on")
            shell.expect("shell> ")
            shell.sendline("exit")
            shell.expect(pexpect.EOF)
        finally:
            shell.close(force=True)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_inside_tmux() -> None:
    """Keys arrive, output is drawn, and the pane's title is set and given back."""
    console = PlayedConsole()
    with playing(console_attach=console.attach) as daemon, tempfile.TemporaryDirectory(prefix="bhc") as directory:

        def tmux(*words: str) -> str:
            done = subprocess.run(["tmux", "-S", f"{directory}/t", *words], check=True, capture_output=True, text=True, timeout=PATIENCE_S)
            return done.stdout

        tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "/bin/sh")
        try:
            tmux("set-option", "-g", "remain-on-exit", "on")
            tmux("select-pane", "-T", "mine")
            command = f"{sys.executable} -m bhyved.cli.ctl console a --socket {daemon.path}; tmux wait-for -S over"
            tmux("send-keys", command, "Enter")
            until(lambda: "leaves" in tmux("capture-pane", "-p"), "the console has greeted", limit_s=PATIENCE_S)
            tmux("send-keys", "uname", "Enter")
            assert console.typed(6) == b"uname\r"
            console.write(b"FreeBSD \x1b[7mmain\x1b[m; ")
            tmux("send-keys", "x")
            assert console.typed(1) == b"x"
            titled = tmux("display-message", "-p", "#{pane_title}")
            tmux("send-keys", "Enter", "~.")
            tmux("wait-for", "over")
            screen = tmux("capture-pane", "-p")
            restored = tmux("display-message", "-p", "#{pane_title}")
        finally:
            tmux("kill-server")

    assert "FreeBSD main;" in screen
    assert (titled, restored) == ("vmctl: a\n", "mine\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("console",), "console: it takes the name of one guest"),
        (("console", "a", "b"), "console: it takes the name of one guest"),
        (("console", "a", "--json"), "console: --json goes with --send, --wait-for and --expect"),
        (("console", "a", "--since", "noon"), '--since is boot, all, end, an offset, or -20 for 20 lines back, not "noon"'),
        (("console", "a", "-e", "ab"), '--escape is one ASCII character, ^X for a control character, or none, not "ab"'),
    ],
)
def test_bad_usage(vmctl: Vmctl, words: tuple[str, ...], sentence: str) -> None:
    """Exit 64, before anything is touched."""
    ran = vmctl(None, *words)

    assert ran.status == 64
    assert ran.err.startswith(f"vmctl: {sentence}")


def test_no_daemon(vmctl: Vmctl) -> None:
    """Exit 69: only a daemon that was there is waited for."""
    ran = vmctl(None, "console", "a", "--socket", "/nowhere/control.sock")

    assert (ran.status, ran.err) == (69, "vmctl: bhyved does not run: there is no /nowhere/control.sock\n")
