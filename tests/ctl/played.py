"""A control socket whose answers a test writes: what vmctl sees of a daemon, without one. Everything runs in threads of the test."""

import json
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Params = dict[str, Any]
Reply = Any
Handler = Callable[[Params], Reply] | Reply

PATIENCE_S = 30.0


class Refusal(Exception):  # noqa: N818 - an answer
    """What a handler raises to answer with an error."""

    def __init__(self, number: int, code: str, text: str, **data: Any) -> None:
        super().__init__(text)
        self.body = {"code": number, "message": text, "data": {"code": code, **data}}


def refuse(number: int, code: str, text: str, **data: Any) -> Callable[[Params], Reply]:
    """A handler that answers everybody with this error."""

    def handler(params: Params) -> Reply:
        raise Refusal(number, code, text, **data)

    return handler


class Stream:
    """What a handler returns when more follows its answer: notifications, then the connection stays open or is closed."""

    def __init__(self, result: Reply, *notifications: tuple[str, Params], close: bool = False) -> None:
        self.result, self.notifications, self.close = result, notifications, close


class TakeOver:
    """What a handler returns to speak something else behind its answer: `serve` gets the socket and what came behind the request."""

    def __init__(self, result: Reply, serve: Callable[[socket.socket, bytes], None]) -> None:
        self.result, self.serve = result, serve


class PlayedDaemon:
    """Listens at `path`. `asked` has each request, in order. Waiting methods are answered at once, in any order that a test likes."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self.path = path
        self.handlers = dict(handlers)
        self.asked: list[tuple[str, Params]] = []
        self.problems: list[BaseException] = []
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []

    def listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(16)
        self._start(self._accept, self._listener)

    def vanish(self, *, keep_socket: bool = False) -> None:
        """As a daemon that is killed: every connection ends. The socket's file stays only if it is wanted."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            if not keep_socket:
                self.path.unlink(missing_ok=True)
        for client in self._clients:
            _close(client)
        self._clients.clear()

    def end(self) -> None:
        self.vanish()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        if self.problems:
            raise self.problems[0]

    def params(self, method: str) -> list[Params]:
        """Of each request for a method."""
        return [params for name, params in self.asked if name == method]

    def _start(self, run: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        buffer = b""
        try:
            while data := client.recv(1 << 16):
                buffer += data
                while b"\n" in buffer:
                    line, _, buffer = buffer.partition(b"\n")
                    if not self._answer(client, json.loads(line), buffer):
                        return
        except OSError:
            pass  # it was closed: by us, or by a client that has seen enough
        except BaseException as error:
            self.problems.append(error)
        finally:
            _close(client)

    def _answer(self, client: socket.socket, request: Params, rest: bytes) -> bool:
        """Whether the connection goes on."""
        assert request["jsonrpc"] == "2.0"
        method, params, number = request["method"], request["params"], request["id"]
        self.asked.append((method, params))
        handler = self.handlers[method]
        try:
            reply = handler(params) if callable(handler) else handler
        except Refusal as refusal:
            _send(client, {"jsonrpc": "2.0", "id": number, "error": refusal.body})
            return True
        result = reply.result if isinstance(reply, Stream | TakeOver) else reply
        _send(client, {"jsonrpc": "2.0", "id": number, "result": result})
        if isinstance(reply, Stream):
            for name, body in reply.notifications:
                _send(client, {"jsonrpc": "2.0", "method": name, "params": body})
            return not reply.close
        if isinstance(reply, TakeOver):
            reply.serve(client, rest)
            return False
        return True


def _send(client: socket.socket, message: Params) -> None:
    client.sendall(json.dumps(message).encode() + b"\n")


def _close(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
    client.close()


@contextmanager
def playing(**handlers: Handler) -> Iterator[PlayedDaemon]:
    """A daemon that answers `vm_list=…` and so on; `_` stands for the dot, `__` for a hyphen."""
    with tempfile.TemporaryDirectory(prefix="bhc") as directory:  # short: a socket's path has 103 bytes
        named = {name.replace("__", "-").replace("_", "."): handler for name, handler in handlers.items()}
        daemon = PlayedDaemon(Path(directory) / "control.sock", named)
        daemon.listen()
        try:
            yield daemon
        finally:
            daemon.end()


def row(name: str, **changes: Any) -> Params:
    """A guest in `vm.list`."""
    return {
        "name": name,
        "phase": "up",
        "reason": "asked for by autostart",
        "desired": "up",
        "pid": 4242,
        "uptime_s": 7265.5,
        "ready": True,
        "adopted": False,
        "restarts": {"reboot": 1, "crash": 2, "start_failure": 0},
        "last_exit": None,
        "next_start_in_s": None,
        "config_changed": False,
        "hold": None,
        "phase_s": 7265.4,
        "since_at": "2026-01-01T12:00:00Z",
        "autostart": True,
        "cpus": 2,
        "memory_bytes": 2 << 30,
        "attempts": "",
        "forced_stops": 0,
        "run": "run1",
        "taps": ["tap3"],
        "vnc": "",
        "serials": ["com1"],
        "suspended": None,
        "waiting_for": "",
        "unready": "",
        "unlimited": "",
        "ill": "",
        "orphaned": False,
        **changes,
    }


def told(name: str, **changes: Any) -> Params:
    """What one guest answers to a wish."""
    return {"name": name, "ok": True, "code": "accepted", "text": "", "run": "run1", "phase": "waiting", **changes}


def waited(**changes: Any) -> Params:
    """What `vm.wait` answers."""
    return {"met": True, "timed-out": False, "phase": "up", "ready": True, "reason": "asked for", "run": "run2", **changes}
