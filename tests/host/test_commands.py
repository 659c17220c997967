"""The operator's commands: their environment, their account, their end."""

import os
import pwd
import time
from pathlib import Path

import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.host.commands import HostCommands
from bhyved.host.toolbox import Tools
from tests.host.scripts import Scripts, is_alive, until

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run commands as somebody else")


@pytest.fixture
def commands(scripts: Scripts) -> HostCommands:
    return HostCommands(scripts.tools)


async def test_input_status_and_the_end_of_the_output_come_back(scripts: Scripts, commands: HostCommands) -> None:
    """A hook reads its story on stdin; what it prints on either stream comes back on one line."""
    scripts.write("hook", "cat; echo; echo oh >&2; exit 3")

    ran = await commands.run([str(scripts.bin / "hook")], limit_s=10, input=b'{"vm": "a"}')

    assert (ran.status, ran.text) == (3, '{"vm": "a"}; oh')


async def test_both_streams_come_back_in_the_order_of_writing(scripts: Scripts, commands: HostCommands) -> None:
    """Complaints stand where the command made them."""
    scripts.write("hook", "for n in 1 2 3 4 5 6 7 8 9; do echo o$n; echo e$n >&2; done")

    ran = await commands.run(["hook"], limit_s=10)

    assert ran.text == "; ".join(f"o{n}; e{n}" for n in range(1, 10))


async def test_of_a_flood_the_end_is_kept(scripts: Scripts, commands: HostCommands) -> None:
    """The reason of a failure is at the end of the output, however long that is."""
    scripts.write("hook", "seq 1 100000; echo no such host")

    ran = await commands.run(["hook"], limit_s=30)

    assert ran.text.startswith("…")
    assert ran.text.endswith("99999; 100000; no such host")
    assert len(ran.text) < 500


async def test_output_cannot_break_a_line(scripts: Scripts, commands: HostCommands) -> None:
    """Escape sequences and bytes that are no text are replaced."""
    scripts.write("hook", r"printf '\033[31mred\377\r\n'; exit 1")

    assert (await commands.run(["hook"], limit_s=10)).text == "?[31mred\N{REPLACEMENT CHARACTER}"


async def test_the_environment_is_clean(scripts: Scripts, commands: HostCommands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command sees PATH, HOME, LC_ALL and what it is given, nothing of whoever started the daemon."""
    monkeypatch.setenv("SECRET", "1")
    scripts.write("hook", "env -u PWD -u SHLVL -u _ | cut -d= -f1 | sort | tr '\\n' ' '")

    assert (await commands.run(["hook"], limit_s=10, env={"BHYVED_VM": "a"})).text == "BHYVED_VM HOME LC_ALL PATH"


async def test_a_value_from_a_guest_cannot_prevent_the_hook(scripts: Scripts, commands: HostCommands) -> None:
    """Zero bytes and half surrogates in an environment value are taken out, not an error."""
    scripts.write("hook", 'printf "%s" "$REASON"')

    assert (await commands.run(["hook"], limit_s=10, env={"REASON": "a\0b\udc80"})).text == "ab?"


async def test_a_command_that_overruns_is_killed_with_its_children(tmp_path: Path, scripts: Scripts, commands: HostCommands) -> None:
    """The status is None, what was printed before is kept, and nothing of the command's group lives on."""
    scripts.write("hook", f"echo waiting; sleep 1000 & echo $! >{tmp_path}/pid; wait")
    begun = time.monotonic()

    ran = await commands.run(["hook"], limit_s=0.4)

    assert (ran.status, ran.text) == (None, "waiting")
    assert time.monotonic() - begun < 5
    grandchild = int((tmp_path / "pid").read_text())
    await until(lambda: not is_alive(grandchild))


async def test_a_signals_number_is_negative(scripts: Scripts, commands: HostCommands) -> None:
    """A command that a signal killed has minus its number as status."""
    scripts.write("hook", "kill -TERM $$")

    assert (await commands.run(["hook"], limit_s=10)).status == -15


async def test_what_cannot_be_run_is_a_sentence(tmp_path: Path, commands: HostCommands) -> None:
    """A missing or unusable program, and a user that does not exist, are operator's errors."""
    with pytest.raises(HostError, match=r"^`nothing --now` could not be run: no such file or directory$"):
        await commands.run([f"{tmp_path}/nothing", "--now"], limit_s=10)
    with pytest.raises(HostError, match=r"^hook was not found in "):
        await HostCommands(Tools((str(tmp_path),))).run(["hook"], limit_s=10)
    with pytest.raises(HostError, match=r'^`true` could not be run: there is no user "nobody-at-all"$') as failure:
        await commands.run(["/bin/true"], limit_s=10, run_as="nobody-at-all")
    assert failure.value.fatal


@AS_ROOT
async def test_run_as_changes_user_group_and_home(scripts: Scripts, commands: HostCommands) -> None:
    """A command of `run-as` has that user's ids and groups, and its HOME."""
    nobody = pwd.getpwnam("nobody")

    ran = await commands.run(["/bin/sh", "-c", 'id -u; id -G; echo "$HOME $USER"'], limit_s=10, run_as="nobody")

    groups = " ".join(map(str, os.getgrouplist("nobody", nobody.pw_gid)))
    assert ran.text == f"{nobody.pw_uid}; {groups}; {nobody.pw_dir} nobody"


async def test_run_as_oneself_needs_no_right(scripts: Scripts, commands: HostCommands) -> None:
    """A daemon that runs as the named user already just runs the command."""
    me = pwd.getpwuid(os.geteuid())

    assert (await commands.run(["/bin/sh", "-c", "echo $HOME"], limit_s=10, run_as=me.pw_name)).text == me.pw_dir


async def test_cancelling_ends_the_command(tmp_path: Path, scripts: Scripts, commands: HostCommands) -> None:
    """A daemon that stops waiting leaves no command behind."""
    scripts.write("hook", f"echo $$ >{tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; sleep 1000")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: commands.run(["hook"], limit_s=100))
            await until((tmp_path / "pid").exists)
            nursery.cancel_scope.cancel()

    assert not is_alive(int((tmp_path / "pid").read_text()))
