"""Which processes are a guest's: by what ps(1) shows, since procfs is normally not mounted (contract 8.2).

A bhyve shows its argv until its resources are acquired and `bhyve: NAME` from then on (contract 1.6). So may any process of anybody's,
if its owner likes: what counts is root's or our own, and in no other jail than ours. Looks are shared: a hundred guests that come up
together cost a few processes, not hundreds. `look` blocks: it is for a daemon that starts.
"""

import functools
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from bhyved.core.errors import HostError, Stuck
from bhyved.host.tool import run_tool
from bhyved.host.toolbox import Result, Tools

_PS = ("ps", "-axww", "-o", "pid,uid,jid,command")  # with the header line: behind `pid=` all the rest would be a header's text
_LINE = re.compile(r" *([0-9]{1,9}) +([0-9]{1,10}) +([0-9]{1,9})(?: (.*))?")
_PROGRAMS = ("bhyve", "bhyveload", "grub-bhyve")
_TITLE = "bhyve: "
_OUTPUT_BYTES = 16 << 20  # thousands of processes with long command lines
_SUFFIX = " (bhyve)"  # ps puts the program's name behind a title (contract 8.2)


class Process(NamedTuple):
    """A line of ps: `uid` is the effective user's, `jail` 0 for the host's own."""

    uid: int
    jail: int
    command: str


@dataclass(frozen=True)
class Seen:
    """One look at the process table: the processes that count, and what guests others say they are."""

    commands: Mapping[int, str]
    strangers: Mapping[tuple[str, int], int] = field(default_factory=dict)  # guest and user → pid

    @functools.cached_property
    def guests(self) -> Mapping[str, int]:
        """Every bhyve, or loader, of any guest: name → pid."""
        return {name: pid for pid, command in self.commands.items() if (name := guest_of(command)) is not None}

    def is_guest(self, pid: int, name: str) -> bool:
        """Whether `pid` is a bhyve or a loader of this guest."""
        return guest_of(self.commands.get(pid, "")) == name

    def holder(self, name: str, owner: int | None) -> int | None:
        """The pid of a bhyve or a loader of this guest, whoever runs it. `owner`: whose its node is, None without one.

        A jail's, or since main a user's own (contract 1.13), is believed to be one where there is a node, of the same user.
        """
        ours = self.guests.get(name)
        return ours if ours is not None or owner is None else self.strangers.get((name, owner))


class Processes:
    """What runs on this host."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._seen = Seen({})
        self._seen_at = float("-inf")
        self._looking = trio.Lock()

    def look(self, max_age_s: float = 0.0) -> Seen:
        """Every process, as it was at most `max_age_s` ago. Raises HostError."""
        asked = at = time.monotonic()
        if self._seen_at < asked - max_age_s:
            self._take(self._tools.ask(_PS), at)
        return self._seen

    async def look_soon(self, max_age_s: float = 0.0) -> Seen:
        """`look`, without blocking the loop. Raises HostError, never Stuck: a ps that hangs says nothing of any guest."""
        asked = time.monotonic()
        async with self._looking:
            at = time.monotonic()
            if self._seen_at < asked - max_age_s:
                try:
                    self._take(await run_tool(self._tools, _PS, keep=_OUTPUT_BYTES), at)
                except Stuck as stuck:
                    raise HostError(str(stuck)) from None
            return self._seen

    def _take(self, result: Result, at: float) -> None:
        self._seen, self._seen_at = seen_in(parse_ps(result.text), os.getpid(), os.geteuid()), at


def seen_in(processes: Mapping[int, Process], own: int, uid: int) -> Seen:
    """Who counts and who does not, for the process `own`, which runs as `uid`."""
    jail = processes[own].jail if own in processes else 0
    ours = {pid: it.command for pid, it in processes.items() if it.uid in (0, uid) and it.jail == jail}
    others = ((pid, it) for pid, it in processes.items() if pid not in ours)
    return Seen(ours, {(name, it.uid): pid for pid, it in others if (name := guest_of(it.command)) is not None})


def parse_ps(text: str) -> dict[int, Process]:
    """`ps -o pid,uid,jid,command` by pid; the header has no numbers."""
    found = {}
    for line in text.split("\n"):  # and at nothing else that str takes for the end of a line: words of anybody's are in it
        match = _LINE.fullmatch(line)
        if match is not None:
            found[int(match[1])] = Process(int(match[2]), int(match[3]), (match[4] or "").strip())
    return found


def has_title(command: str, name: str) -> bool:
    """Whether this is the bhyve of `name`, and has all its resources."""
    return command.startswith(_TITLE) and command.removeprefix(_TITLE).removesuffix(_SUFFIX) == name


def guest_of(command: str) -> str | None:
    """The guest whose bhyve or loader this is, whoever started it."""
    if command.startswith(_TITLE):
        return command.removeprefix(_TITLE).removesuffix(_SUFFIX)
    if "bhyve" not in command:
        return None
    words = command.split(None, 2)  # not all of them: a keeper's command line has its whole script in it
    # The program is the first word, or the path that an interpreter runs; the name is the last (contract 1.1, 2.2, 2.3).
    programs = (words[0], *(word for word in words[1:2] if word.startswith("/")))
    if len(words) < 2 or not any(os.path.basename(word) in _PROGRAMS for word in programs):
        return None
    return command.rsplit(None, 1)[-1]
