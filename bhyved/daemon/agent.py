"""The QEMU guest agent behind a virtio-console port: whether it answers, and file systems frozen and thawed by it.

bhyve takes one client a port, closes a second at once, and a client must read (contract 3.2): visits to one guest's agent come one after
the other, and take all that comes.
"""

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from bhyved.core.spec import AGENT_PORT, VmSpec

ASK_S = 5.0  # for an answer to something that costs the guest nothing
FREEZE_S = 10.0  # the guest writes out what it holds in memory
_ANSWER_BYTES = 1 << 16
_BROKEN = (OSError, trio.BrokenResourceError, trio.TooSlowError)


class AgentError(Exception):
    """The agent did not answer, or said no: in words."""


class Agent:
    """Of one guest, whichever run it is in."""

    def __init__(self) -> None:
        self._one = trio.Lock()

    @asynccontextmanager
    async def visit(self, path: str) -> AsyncIterator["Visit"]:
        """Talk to it, when nobody else does. Raises AgentError."""
        async with self._one:
            try:
                with trio.fail_after(ASK_S):
                    stream = await trio.open_unix_socket(path)
            except _BROKEN as error:
                raise AgentError(f"its agent cannot be reached at {path}") from error
            async with stream:
                yield Visit(stream)

    async def problem(self, path: str) -> str:
        """Why it does not answer `guest-ping`, or ''. What keeps others waiting for it is not counted against the guest."""
        try:
            async with self.visit(path) as visit:
                await visit.sync()  # an answer to somebody before us is none
                await visit.ask("guest-ping", ASK_S)
        except AgentError as error:
            return str(error)
        return ""


class Visit:
    """One conversation: JSON, an object a line."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream, self._buffer = stream, b""

    async def sync(self) -> None:
        """Leave out what it still had to say to whoever came before. Raises AgentError."""
        number = secrets.randbelow(1 << 31)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        try:
            with trio.fail_after(ASK_S):
                await self._send(request)
                while (await self._answer()).get("return") != number:
                    pass
        except _BROKEN:
            raise AgentError("its agent does not answer") from None

    async def _send(self, request: object) -> None:
        # 0xff has it forget half a request of whoever came before.
        await self._stream.send_all(b"\xff" + json.dumps(request).encode() + b"\n")

    async def ask(self, command: str, limit_s: float) -> Any:
        """What a command returns. Raises AgentError."""
        try:
            with trio.fail_after(limit_s):
                await self._send({"execute": command})
                answer = await self._answer()
        except _BROKEN:
            raise AgentError(f"its agent did not answer {command} within {limit_s:g} s") from None
        if "error" in answer:
            raise AgentError(f"its agent refuses {command}: {_words(answer['error'])}")
        return answer.get("return")

    async def _answer(self) -> dict[str, Any]:
        """The next object. Raises AgentError at the end of the conversation."""
        while True:
            line, end, rest = self._buffer.partition(b"\n")
            if not end:
                data = await self._stream.receive_some(4096)
                if not data or len(self._buffer) > _ANSWER_BYTES:
                    raise AgentError("its agent has ended the conversation")
                self._buffer += data
                continue
            self._buffer = rest
            try:
                answer = json.loads(line.rpartition(b"\xff")[2])
            except (ValueError, RecursionError):
                continue  # half an answer to somebody else, or a guest that tries what we are made of
            if isinstance(answer, dict) and ("return" in answer or "error" in answer):
                return answer


def _words(error: object) -> str:
    """The guest's words: short, and harmless in a log."""
    text = str(error.get("desc", "")) if isinstance(error, dict) else ""
    return "".join(char if char.isprintable() else "?" for char in text)[:200] or "it does not say why"


def agent_path(spec: VmSpec, run: str) -> str:
    """The host's end of the guest agent's port; '' when the guest has none."""
    for number, console in enumerate(spec.virtio_console):
        if console.name == AGENT_PORT:
            return str(console.path or f"{run}/vm/{spec.name}/vtcon{number}.sock")
    return ""
