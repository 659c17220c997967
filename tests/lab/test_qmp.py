"""The QMP client, against a peer that plays QEMU."""

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bhyved.lab.qmp import Qmp, QmpError, QmpEvent

Reply = Callable[[dict[str, Any], list[int]], list[dict[str, Any]] | None]


@pytest.fixture
def qemu() -> Iterator[Callable[[Reply], Qmp]]:
    """Starts a peer that answers each command with the messages that `reply` returns; None hangs up."""
    threads: list[threading.Thread] = []
    clients: list[Qmp] = []

    def start(reply: Reply) -> Qmp:
        ours, theirs = socket.socketpair()

        def play() -> None:
            with theirs:
                theirs.sendall(b'{"QMP": {"version": {}}}\r\n')
                while True:
                    request, fds, _, _ = socket.recv_fds(theirs, 65536, 4)
                    answers = reply(json.loads(request), fds) if request else None
                    if answers is None:
                        return
                    theirs.sendall(b"".join(json.dumps(answer).encode() + b"\r\n" for answer in answers))

        threads.append(threading.Thread(target=play))
        threads[-1].start()
        clients.append(Qmp(ours))
        return clients[-1]

    yield start
    for client in clients:
        client.close()
    for thread in threads:
        thread.join(10)


def test_a_call_returns_its_answer_and_keeps_the_events_before_it(qemu: Callable[[Reply], Qmp]) -> None:
    """Events that arrive between question and answer are there afterwards, in order."""
    events: list[dict[str, Any]] = [{"event": "POWERDOWN"}, {"event": "SHUTDOWN", "data": {"reason": "guest-reset"}}]
    client = qemu(lambda request, _: [*events, {"return": request["arguments"]}])

    assert client.call("echo", {"a": 1}) == {"a": 1}
    assert client.take_events() == [QmpEvent("POWERDOWN"), QmpEvent("SHUTDOWN", {"reason": "guest-reset"})]
    assert client.take_events() == []


def test_a_refusal_is_an_error_with_qemus_sentence(qemu: Callable[[Reply], Qmp]) -> None:
    """What QEMU says about a refused command is in the error, after the command's name."""
    client = qemu(lambda *_: [{"error": {"class": "GenericError", "desc": "no such thing"}}])

    with pytest.raises(QmpError, match=r"^add_client: no such thing$"):
        client.call("add_client")


def test_a_hang_up_in_a_call_is_an_error_and_stays_known(qemu: Callable[[Reply], Qmp]) -> None:
    """QEMU's end shows in the call it interrupts, and from then on."""
    client = qemu(lambda *_: None)

    with pytest.raises(QmpError, match="QEMU has gone"):
        client.call("quit")

    assert client.has_hung_up()


def test_a_hang_up_between_calls_is_seen_with_the_events(qemu: Callable[[Reply], Qmp]) -> None:
    """Taking events notices that there will be no more of them."""
    ours, theirs = socket.socketpair()
    client = Qmp(ours)
    assert client.take_events() == []
    assert not client.has_hung_up()

    theirs.sendall(b'{"event": "STOP"}\r\n')
    theirs.close()

    assert client.take_events() == [QmpEvent("STOP")]
    assert client.take_events() == []
    assert client.has_hung_up()
    client.close()


def test_descriptors_travel_with_a_call(qemu: Callable[[Reply], Qmp]) -> None:
    """QEMU gets the very file, under another number."""

    def reply(_: dict[str, Any], fds: list[int]) -> list[dict[str, Any]]:
        with open(fds[0], "rb") as received:
            return [{"return": received.read().decode()}]

    reading, writing = os.pipe()
    with open(reading, "rb") as passed:
        os.write(writing, b"hello")
        os.close(writing)

        assert qemu(reply).call("getfd", {"fdname": "x"}, [passed.fileno()]) == "hello"
