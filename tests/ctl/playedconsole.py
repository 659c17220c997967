"""A guest's console as a played daemon offers it: frames, written by the test, and what the client typed."""

import json
import queue
import socket
import threading
from typing import Any

from bhyved.core.frames import Frame, Gap, Kind, Parser, data_header, frame, gap
from tests.ctl.played import PATIENCE_S, Params, TakeOver


class PlayedConsole:
    """`attach` is the handler of console.attach. What is printed is kept, and a client that comes back gets what it missed."""

    def __init__(self, kept: bytes = b"", *, stream: str = "s1", **about: Any) -> None:
        self.kept = kept
        self.about: Params = {"running": True, "writer": "", "viewers": [], "problem": "", **about}
        self.stream = stream
        self.asked: list[Params] = []
        self.frames: queue.Queue[Frame] = queue.Queue()  # from the client
        self._client: socket.socket | None = None
        self._lock = threading.Lock()
        self._attached = threading.Semaphore(0)

    def attach(self, params: Params) -> TakeOver:
        self.asked.append(params)
        since = params.get("since", "end")
        offset = {"end": len(self.kept), "all": 0, "boot": 0}.get(since, since) if params.get("lines") is None else 0
        result = {"frames": 1, "name": params["name"], "port": params.get("port", "com1"), "stream": self.stream, "offset": offset}
        return TakeOver({**result, "end": len(self.kept), **self.about}, lambda client, rest: self._serve(client, rest, offset))

    def _serve(self, client: socket.socket, rest: bytes, offset: int) -> None:
        with self._lock:
            self._client = client
            for at in range(offset, len(self.kept), 1 << 16):
                data = self.kept[at : at + (1 << 16)]
                client.sendall(data_header(at, len(data)) + data)
        self._attached.release()
        parser = Parser()
        data = rest
        while True:
            for each in parser.feed(data):
                self.frames.put(each)
            data = client.recv(1 << 16)
            if not data:
                return

    def attached(self) -> None:
        """Return when one more client has attached."""
        assert self._attached.acquire(timeout=PATIENCE_S)

    def write(self, data: bytes) -> None:
        """The guest prints."""
        with self._lock:
            offset = len(self.kept)
            self.kept += data
            assert self._client is not None
            self._client.sendall(data_header(offset, len(data)) + data)

    def tell(self, event: str, **fields: Any) -> None:
        """An event for the viewer."""
        self._send(frame(Kind.EVENT, json.dumps({"event": event, **fields}).encode()))

    def lose(self, size: int, why: str) -> None:
        """Output that the viewer was too slow for."""
        missing = Gap(len(self.kept), size, why)
        self.kept += b"?" * size
        self._send(gap(missing))

    def _send(self, data: bytes) -> None:
        with self._lock:
            assert self._client is not None
            self._client.sendall(data)

    def typed(self, size: int) -> bytes:
        """So many bytes of keystrokes."""
        keys = b""
        while len(keys) < size:
            each = self.frames.get(timeout=PATIENCE_S)
            assert each.kind is Kind.INPUT
            keys += each.payload
        return keys

    def nothing_typed(self) -> bool:
        return self.frames.empty()
