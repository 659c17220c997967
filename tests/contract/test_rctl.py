"""The stand-in of rctl(8), as strict as rctl.c and kern_rctl.c of FreeBSD, and what `host.limiting` makes of it."""

import subprocess
from collections.abc import Iterator

import pytest
import trio

from bhyved.core.errors import HostError
from bhyved.core.limits import Limits
from bhyved.core.units import Size
from bhyved.host.limiting import limit, refuse_unlimited
from bhyved.host.toolbox import Tools
from tests.contract.stand_ins import Lab


@pytest.fixture
def pid() -> Iterator[int]:
    """Some process."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def counting(lab: Lab) -> Lab:
    """A lab whose kernel counts."""
    lab.settle(sysctl={"kern.racct.enable": 1})
    return lab


def test_disabled_as_in_generic(lab: Lab, pid: int) -> None:
    """Whatever is asked, rctl says how to enable it and ends with 1."""
    for words in (("-a", f"process:{pid}:pcpu:deny=50"), (f"process:{pid}",), ("-r", f"process:{pid}")):
        done = lab.call("rctl", *words)
        said = "rctl: RACCT/RCTL present, but disabled; enable using kern.racct.enable=1 tunable\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_rules_are_listed_as_they_hold(counting: Lab, pid: int) -> None:
    """Suffixes become numbers; a denial takes the place of another, a throttle stands beside it."""
    added = (f"process:{pid}:pcpu:deny=50", f"process:{pid}:pcpu:deny=75", f"process:{pid}:readbps:throttle=1m")
    assert counting.call("rctl", "-a", *added, f"process:{pid}:readbps:throttle=2m").returncode == 0

    listed = counting.call("rctl", f"process:{pid}").stdout.splitlines()

    assert listed == [
        f"process:{pid}:pcpu:deny=75",
        f"process:{pid}:readbps:throttle=1048576",
        f"process:{pid}:readbps:throttle=2097152",
    ]
    assert counting.call("rctl", "-r", f"process:{pid}:readbps:throttle").returncode == 0
    assert counting.call("rctl", f"process:{pid}").stdout == f"process:{pid}:pcpu:deny=75\n"


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("process:{pid}:pcpu:throttle=50", "Operation not supported"),
        ("process:{pid}:readbps:deny=50", "Operation not supported"),
        ("process:{pid}:swapuse:deny=50", "Operation not supported"),
        ("process:{pid}:cputime:deny=50", "Operation not supported"),
        ("process:{pid}:readops:throttle=50", "Invalid argument"),
        ("process:{pid}:pcpu:forbid=50", "Invalid argument"),
        ("process:{pid}:pcpu:deny", "Invalid argument"),
        ("process:999999999:pcpu:deny=50", "No such process"),
    ],
)
def test_what_the_kernel_refuses(counting: Lab, pid: int, rule: str, why: str) -> None:
    """The sentence names the rule; the status counts those that failed."""
    rule = rule.format(pid=pid)
    done = counting.call("rctl", "-a", rule)

    assert (done.returncode, done.stderr) == (1, f"rctl: failed to add rule '{rule}': {why}\n")
    assert counting.call("rctl", "-a", rule, rule, f"process:{pid}:pcpu:deny=5").returncode == 2


def test_nothing_to_remove(counting: Lab, pid: int) -> None:
    """Is a failure."""
    done = counting.call("rctl", "-r", f"process:{pid}:pcpu")

    assert (done.returncode, done.stderr) == (1, f"rctl: failed to remove rule 'process:{pid}:pcpu': No such process\n")


def test_rules_go_with_their_process(counting: Lab, pid: int) -> None:
    """Whoever has that pid next is not limited."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        assert counting.call("rctl", "-a", f"process:{process.pid}:pcpu:deny=5").returncode == 0
        process.kill()
    assert counting.call("rctl", "process:").stdout == ""


def test_limits_are_made_what_they_should_be(counting: Lab, pid: int) -> None:
    """From none to some, to others, to none; a rule of the operator's stays."""
    tools = Tools(bin=(str(counting.root / "bin"),))
    counting.call("rctl", "-a", f"process:{pid}:openfiles:deny=500")
    listed = []

    async def run() -> None:
        both = Limits(pcpu=150, readbps=Size(50 << 20))
        for limits in (both, both, Limits(readbps=Size(10 << 20), writeiops=7), None, None):
            await limit(tools, pid, limits)
            listed.append(counting.call("rctl", f"process:{pid}").stdout.split()[1:])

    trio.run(run)

    first = [f"process:{pid}:pcpu:deny=150", f"process:{pid}:readbps:throttle=52428800"]
    assert listed == [first, first, [f"process:{pid}:readbps:throttle=10485760", f"process:{pid}:writeiops:throttle=7"], [], []]


@pytest.mark.parametrize(("racct", "jailed", "word"), [(0, 0, "/boot/loader.conf"), (1, 0, ""), (1, 1, "a jail may set no rules")])
def test_a_start_is_refused_where_no_limit_would_hold(lab: Lab, racct: int, jailed: int, word: str) -> None:
    """For good, until the host has been booted with the line, and always in a jail; a guest without limits does not ask."""
    lab.settle(sysctl={"kern.racct.enable": racct, "security.jail.jailed": jailed})
    tools = Tools(bin=(str(lab.root / "bin"),))
    trio.run(refuse_unlimited, tools, None)

    if not word:
        trio.run(refuse_unlimited, tools, Limits(pcpu=5))
        return
    with pytest.raises(HostError, match=word) as refused:
        trio.run(refuse_unlimited, tools, Limits(pcpu=5))
    assert refused.value.fatal
