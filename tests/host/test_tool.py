"""Host commands: found, bounded, and their failure said in a sentence."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import trio

from bhyved.core.errors import HostError, Stuck
from bhyved.host import child
from bhyved.host.spawn import seal_inherited
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import ToolError, Tools
from tests.host.scripts import Scripts, is_alive, until


@pytest.fixture
def tools(scripts: Scripts) -> Tools:
    return scripts.tools


def no_children() -> bool:
    """Whether this process has no child, dead or alive."""
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


async def test_output_and_status_come_back(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """Standard output and error come back apart, with the exit status."""
    scripts.write("ifconfig", "echo out; echo err >&2; exit 3")

    with trio.fail_after(10):
        result = await run_tool(tools, ["ifconfig", "-l"], ok=(3,))

    assert (result.status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")


async def test_a_failure_is_one_sentence(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """A failed command is named with its exit status and what it said, on one line."""
    scripts.write("ifconfig", 'echo "ifconfig: interface tap7 already exists" >&2; echo again >&2; exit 1')

    with trio.fail_after(10), pytest.raises(ToolError) as failure:
        await run_tool(tools, ["ifconfig", "tap7", "create"])

    assert str(failure.value) == "`ifconfig tap7 create` failed with exit status 1: ifconfig: interface tap7 already exists; again"


async def test_death_by_signal_is_named(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """A command that dies of a signal is said to have been killed by it."""
    scripts.write("bhyvectl", "kill -SEGV $$")

    with trio.fail_after(10), pytest.raises(HostError, match=r"^`bhyvectl --vm=a` was killed by signal 11 \(SIGSEGV\)$"):
        await run_tool(tools, ["bhyvectl", "--vm=a"])


async def test_a_missing_tool_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    """A command that is nowhere is reported with the directories that were searched."""
    with pytest.raises(HostError, match=f"^zfs was not found in {tmp_path}/a:{tmp_path}/b$"):
        await run_tool(Tools((f"{tmp_path}/a", f"{tmp_path}/b")), ["zfs", "list"])


async def test_a_command_that_cannot_be_executed_is_an_operators_error(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """A file that is no program fails with the system's reason, not with a traceback."""
    scripts.write("zfs", "")
    (tmp_path / "bin" / "zfs").write_bytes(b"\x7fELF")

    with trio.fail_after(10), pytest.raises(HostError, match=r"^`zfs list` could not be run: exec format error$"):
        await run_tool(tools, ["zfs", "list"])


async def test_time_is_up(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """A command that hangs is killed at its limit together with its children, and the sentence says so."""
    scripts.write("ifconfig", f"sleep 1000 & echo $! >{tmp_path}/pid; wait")
    begun = time.monotonic()

    with trio.fail_after(10), pytest.raises(HostError, match=r"^`ifconfig tap3 destroy` did not end within 0.4 s and was killed$"):
        await run_tool(tools, ["ifconfig", "tap3", "destroy"], limit_s=0.4)

    assert time.monotonic() - begun < 5
    grandchild = int((tmp_path / "pid").read_text())
    await until(lambda: not is_alive(grandchild))  # init reaps it


async def test_a_process_that_survives_sigkill_is_stuck(
    tmp_path: Path, scripts: Scripts, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that the kernel does not let go is reported as stuck, and reaped when it ends at last."""
    scripts.write("ifconfig", "exec sleep 1000")
    monkeypatch.setattr(child, "KILL_S", 0.05)
    real_killpg = os.killpg
    monkeypatch.setattr(os, "killpg", lambda pid, sig: None)

    with trio.fail_after(10), pytest.raises(Stuck, match=r"^`ifconfig tap3 destroy` \(pid \d+\) is stuck in the kernel$"):
        await run_tool(tools, ["ifconfig", "tap3", "destroy"], limit_s=0.1)
    (pid,) = tools.stuck
    assert tools.stuck[pid] == "ifconfig tap3 destroy"

    real_killpg(pid, signal.SIGKILL)

    def let_go() -> bool:
        tools.reap_stuck()
        return not tools.stuck

    await until(let_go)
    assert not is_alive(pid)


async def test_a_flood_is_dropped(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """Output beyond the limit is read and dropped: the command ends as if it had been read."""
    scripts.write("zfs", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 0")

    with trio.fail_after(20):
        result = await run_tool(tools, ["zfs", "list"])

    assert (len(result.stdout), len(result.stderr)) == (child.OUTPUT_BYTES, child.OUTPUT_BYTES)


async def test_an_endless_flood_does_not_keep_the_loop(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """While a command floods its output for ever other tasks run, and it ends at its limit."""
    scripts.write("zfs", "exec cat /dev/zero")
    turns = 0

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.sleep(0.01)
                    turns += 1

            nursery.start_soon(count)
            with pytest.raises(HostError, match=r"did not end within"):
                await run_tool(tools, ["zfs", "list"], limit_s=0.5)
            nursery.cancel_scope.cancel()

    assert turns > 5


async def test_a_grandchild_with_the_pipe_is_not_waited_for(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """A background process that keeps the output open does not delay the command's end."""
    scripts.write("zfs", f"echo done; sleep 1000 & echo $! >{tmp_path}/pid")

    with trio.fail_after(10):
        result = await run_tool(tools, ["zfs", "list"], limit_s=60)

    assert result.stdout == b"done\n"
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


async def test_the_environment_is_clean(tmp_path: Path, scripts: Scripts, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sees PATH, HOME and LC_ALL and nothing of the daemon's environment; its stdin is empty, its session its own."""
    monkeypatch.setenv("BHYVED_SECRET", "x")
    scripts.write("zfs", "env; cat; ps -o sid= -p $$; echo $$")

    with trio.fail_after(10):
        lines = (await run_tool(tools, ["zfs"])).text.splitlines()

    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert {k: v for k, v in seen.items() if k not in ("PWD", "_", "OLDPWD", "SHLVL")} == {
        "PATH": ":".join(tools.bin),
        "HOME": "/",
        "LC_ALL": "C",
    }
    assert lines[-1].strip() == lines[-2].strip()


async def test_input_larger_than_a_pipe_arrives_whole(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """All of the input arrives on the command's stdin, followed by end-of-file."""
    scripts.write("zfs", "wc -c")

    with trio.fail_after(10):
        result = await run_tool(tools, ["zfs"], input=b"x" * 300_000)

    assert int(result.stdout) == 300_000


async def test_input_that_nobody_reads_is_no_error(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """A command that ends without reading its input succeeds all the same."""
    scripts.write("zfs", "exit 0")

    with trio.fail_after(10):
        assert (await run_tool(tools, ["zfs"], input=b"x" * 300_000)).status == 0


async def test_liveness_descriptor_is_inherited_under_its_number(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """The guest's FIFO reaches the command, and no other descriptor of ours does."""
    seal_inherited()
    reading, writing = os.pipe()
    look = "import os,sys\nfor n in range(3, 200):\n try: os.fstat(n); print(n)\n except OSError: pass\nos.write(int(sys.argv[1]), b'here')"
    try:
        with trio.fail_after(10):
            result = await run_tool(tools, [sys.executable, "-c", look, str(writing)], pass_fd=writing)

        assert result.text.split() == [str(writing)]
        assert os.read(reading, 100) == b"here"
    finally:
        os.close(reading)
        os.close(writing)


async def test_cancelling_kills_and_reaps(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """When the caller is cancelled its command is killed and no zombie stays."""
    scripts.write("zfs", f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_tool, tools, ["zfs", "list"])
            await until((tmp_path / "pid").exists)
            nursery.cancel_scope.cancel()

    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
async def test_no_descriptor_leaks(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """Success, failure, time-out and a missing program leave no descriptor behind."""
    scripts.write("good", "exit 0")
    scripts.write("bad", "exit 1")
    scripts.write("slow", "exec sleep 1000")
    scripts.write("broken", "")
    (tmp_path / "bin" / "broken").write_bytes(b"\x7fELF")

    async def all_four() -> int:
        await run_tool(tools, ["good"], input=b"x")
        for name in ("bad", "slow", "broken"):
            with pytest.raises(HostError):
                await run_tool(tools, [name], limit_s=0.05 if name == "slow" else 10, input=b"x" * 200_000)
        return len(os.listdir("/proc/self/fd"))

    with trio.fail_after(20):
        first = await all_four()
        assert await all_four() == first


async def test_no_descriptors_left_is_a_sentence(tmp_path: Path, scripts: Scripts, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of descriptors at any point of a start gives a sentence, and no process runs on."""
    scripts.write("good", f"echo $$ >{tmp_path}/pid; exec sleep 1000")

    def refuse(pid: int) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(child, "open_watch", refuse)

    with trio.fail_after(10), pytest.raises(HostError, match=r"^`good` could not be run: too many open files$"):
        await run_tool(tools, ["good"])

    assert no_children()


def test_asking_without_a_loop(tmp_path: Path, scripts: Scripts, tools: Tools) -> None:
    """The blocking way says the same sentences as the other."""
    scripts.write("sysctl", "echo no >&2; exit 1")
    scripts.write("slow", "exec sleep 1000")

    assert tools.ask(["sysctl"], ok=None).status == 1
    with pytest.raises(HostError, match=r"^`sysctl -n x` failed with exit status 1: no$"):
        tools.ask(["sysctl", "-n", "x"])
    with pytest.raises(HostError, match=r"^`slow` did not end within 0.1 s and was killed$"):
        tools.ask(["slow"], limit_s=0.1)
