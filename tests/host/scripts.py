"""Small sh programs that stand in for host commands, each of a few lines that a test needs."""

import os
from collections.abc import Callable
from pathlib import Path

import trio

from bhyved.host.toolbox import Tools


class Scripts:
    """A directory of commands, and the log of their calls."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.bin.mkdir(parents=True, exist_ok=True)
        self._calls = directory / "calls"
        self.tools = Tools((str(self.bin), "/usr/bin", "/bin"))

    def write(self, name: str, text: str) -> None:
        """The command `name` is this sh text from now on; its calls are noted."""
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self._calls}\n{text}\n')
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Every call so far, as typed."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []


async def until(claim: Callable[[], object], limit_s: float = 10) -> None:
    """Wait for a condition of the system that sends no event."""
    with trio.fail_after(limit_s):
        while not claim():  # noqa: ASYNC110 - nobody is told of it
            await trio.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, if only as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


#: ifconfig with interfaces in files of $S: made, set, joined, destroyed as contract 5.3 and 5.4 say. `NAME.pid` = opened by that pid.
IFCONFIG = """
fail() { echo "ifconfig: $1" >&2; exit 1; }
if [ "$1" = -a ]; then
    for f in $S/*.if; do [ -e "$f" ] && cat "$f"; done
    exit 0
fi
name=$1; f=$S/$name.if; shift
if [ "$1" = create ] && ! [ -e $f ]; then
    case $name in tap*) kind=tap;; *) kind=bridge;; esac
    printf '%s: flags=8802<BROADCAST,SIMPLEX,MULTICAST> metric 0 mtu 1500\\n\\tgroups: %s\\n' $name $kind >$f
    shift
elif [ "$1" = create ] && [ $# = 1 ]; then
    fail "interface $name already exists"
elif [ "$1" = create ]; then
    shift
fi
[ -e $f ] || fail "interface $name does not exist"
[ $# = 0 ] && { cat $f; [ -e $S/$name.pid ] && printf '\\tOpened by PID %s\\n' $(cat $S/$name.pid); exit 0; }
while [ $# -gt 0 ]; do
    case $1 in
    description) printf '\\tdescription: %s\\n' "$2" >>$f; shift;;
    group) sed "s/groups:.*/& $2/" $f >$f.new && mv $f.new $f; shift;;
    mtu) sed "s/mtu [0-9]*/mtu $2/" $f >$f.new && mv $f.new $f; shift;;
    up) sed "s/</<UP,/" $f >$f.new && mv $f.new $f;;
    addm)
        [ -e $S/$2.if ] || fail "BRDGADD $2: No such file or directory"
        for other in $S/*.if; do
            grep -q "member: $2 " $other || continue
            [ $other = $f ] && fail "BRDGADD $2: File exists"
            fail "BRDGADD $2: Device busy"
        done
        printf '\\tmember: %s flags=143<LEARNING>\\n' $2 >>$f; shift;;
    destroy) while [ -e $S/$name.pid ]; do sleep 1; done; rm $f;;
    esac
    shift
done
"""


def write_ifconfig(scripts: Scripts, *interfaces: str) -> Path:
    """The stand-in ifconfig, with these interfaces made; returns the directory of their files."""
    state = scripts.directory / "interfaces"
    state.mkdir()
    scripts.write("ifconfig", f"S={state}\n{IFCONFIG}")
    for name in interfaces:
        scripts.tools.ask(["ifconfig", name, "create"])
    (scripts.directory / "calls").unlink(missing_ok=True)
    return state
