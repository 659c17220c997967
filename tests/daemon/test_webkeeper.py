"""Which reload ends the HTTP server and opens another."""

from typing import Any, cast

import pytest
import trio
import trio.testing

from bhyved.core.errors import HostError
from bhyved.core.spec import Metrics
from bhyved.core.values import AbsPath
from bhyved.daemon.web import Web
from bhyved.daemon.webkeeper import WebKeeper

PLAIN = Metrics(listen="127.0.0.1:1")
TLS = Metrics(listen="127.0.0.1:1", tls_cert=AbsPath("/cert"), tls_key=AbsPath("/key"))


class Played:
    """Servers that only say where they are; `lives` are those that have not ended."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.opened: list[tuple[str, str]] = []
        self.lives: list[Metrics] = []
        self.keeper = WebKeeper(self._make, lambda url, problem: self.opened.append((url, problem)))

    def _make(self, spec: Metrics) -> Web:
        played = self

        class Server:
            problem = played.problem

            async def run(self, *, task_status: trio.TaskStatus[str]) -> None:
                if self.problem:
                    task_status.started("")
                    return
                played.lives.append(spec)
                task_status.started(f"http://{spec.listen}")
                try:
                    await trio.sleep_forever()
                finally:
                    played.lives.remove(spec)

            def new_link(self) -> str:
                return f"http://{spec.listen}/login"

        return cast(Web, Server())


@pytest.mark.parametrize(
    ("first", "then", "count"),
    [
        (PLAIN, PLAIN, 1),
        (PLAIN, Metrics(listen="127.0.0.1:1", vcpu_stats=True), 1),
        (PLAIN, Metrics(listen="127.0.0.1:2"), 2),
        (PLAIN, TLS, 2),
        (TLS, TLS, 2),  # its certificate may be another by now
        (Metrics(listen=""), Metrics(listen=""), 1),
        (Metrics(listen=""), PLAIN, 2),
    ],
)
async def test_a_reload(first: Metrics, then: Metrics, count: int, nursery: trio.Nursery) -> None:
    """One server at a time, and only where something has changed for it."""
    played = Played()
    await nursery.start(played.keeper.run, first)
    played.keeper.reload(then)
    await trio.testing.wait_all_tasks_blocked()

    assert len(played.opened) == count
    assert [spec.listen for spec in played.lives] == ([then.listen] if then.listen else [])


async def test_one_that_could_not_be_opened_is_tried_again(nursery: trio.Nursery) -> None:
    """At the next reload, whatever that is about."""
    played = Played("the port is taken")
    await nursery.start(played.keeper.run, PLAIN)
    assert played.opened == [("", "the port is taken")]
    played.problem = ""
    played.keeper.reload(PLAIN)
    await trio.testing.wait_all_tasks_blocked()

    assert played.opened[1:] == [("http://127.0.0.1:1", "")]
    assert played.keeper.new_link() == "http://127.0.0.1:1/login"


async def test_no_link_to_what_is_off(nursery: trio.Nursery) -> None:
    """It says which key."""
    played: Any = Played()
    await nursery.start(played.keeper.run, Metrics(listen=""))

    assert played.opened == [("", "")]
    with pytest.raises(HostError, match=r"metrics\.listen is empty"):
        played.keeper.new_link()
