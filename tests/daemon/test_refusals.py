"""Refused changes in the log: with who asked, and no more lines than nobody minds."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from bhyved.daemon.refusals import LINES, PERIOD_S, USERS_MAX, Refusals
from tests.daemon.controlkit import guest, served, user

EVE, MALLORY = user("eve", 1006), user("mallory", 1007)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Told:
    """Refusals at a time that the test says."""

    def __init__(self) -> None:
        self.now = 50.0
        self.refusals = Refusals(lambda: self.now)

    def lines(self, times: int, peer: Any = EVE) -> list[Any]:
        with capture_logs() as logs:
            for _ in range(times):
                self.refusals.tell(peer, "vm.stop", "not-permitted")
        return logs


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("vm.stop", {"names": ["web1"]}, "not-permitted"),
        ("vm.rollback", {"name": "web1", "snapshot": "x"}, "not-permitted"),
        ("vm.snapshot-delete", {"name": "nope", "snapshot": "x"}, "not-permitted"),
        ("config.reload", {}, "not-permitted"),
        ("daemon.drain", {"on": True}, "not-permitted"),
    ],
)
async def test_a_change_that_is_refused_as_a_whole_is_logged(tmp_path, method, params, code):
    """A line with user and process, and none of the caller's words."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client(EVE) as client:
        with capture_logs() as logs:
            await client.ask(method, **params)
            assert (await client.line())["error"]["data"]["code"] == code
        events = daemon.guests.events.since(0)

    line = {"event": "refused", "log_level": "warning", "method": method, "code": code, "uid": 1006, "user": "eve", "pid": 4242}
    assert logs == [line]
    assert events == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("vm.stop", {"names": ["db1", "nope"]}, "no-such-guest"),
        ("vm.snapshot", {"names": ["db1"]}, "no-such-guest"),
        ("console.send", {"name": "web1", "text": "x"}, "no-console"),
        ("vm.rollback", {"name": "web1", "snapshot": "x"}, "not-permitted"),
    ],
)
async def test_what_an_owner_may_not_do_is_logged(tmp_path, method, params, code):
    """To guests of others, or what owners may not, or what cannot be done."""
    async with served(tmp_path, guest("web1", owner=("eve",)), guest("db1")) as daemon, daemon.client(EVE) as client:
        with capture_logs() as logs:
            await client.ask(method, **params)
            await client.line()

    assert [(line["event"], line["method"], line["code"], line["uid"]) for line in logs] == [("refused", method, code, 1006)]


@pytest.mark.parametrize(("method", "params"), [("vm.list", {}), ("config.reload", {"plan": True}), ("vm.stop", {"name": 7})])
async def test_what_would_change_nothing_is_not(tmp_path, method, params):
    """A question, a plan, and what cannot be understood."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client(EVE) as client:
        with capture_logs() as logs:
            await client.ask(method, **params)
            assert "error" in (await client.line())

    assert logs == []


async def test_a_flood_costs_a_few_lines(tmp_path):
    """However fast somebody asks; another user's refusal is logged all the same."""
    async with served(tmp_path, guest("web1")) as daemon:
        with capture_logs() as logs:
            for peer, times in ((EVE, LINES + 100), (MALLORY, 1)):
                async with daemon.client(peer) as client:
                    for _ in range(times):
                        await client.ask("vm.stop", names=["web1"])
                    for _ in range(times):
                        await client.line()

    assert [line["user"] for line in logs] == ["eve"] * LINES + ["mallory"]


def test_the_last_line_says_that_it_is_the_last() -> None:
    """And the first of the next period how many were not logged."""
    told = Told()
    lines = told.lines(LINES + 7)
    told.now += PERIOD_S - 0.01
    silent = told.lines(1)
    told.now += 0.01
    again = told.lines(2)

    assert [line.get("quiet_s") for line in lines] == [None] * (LINES - 1) + [PERIOD_S]
    assert silent == []
    assert [line.get("untold") for line in again] == [8, None]


def test_users_without_end_are_forgotten() -> None:
    """When their time is over; nobody gets more lines by their coming."""
    told = Told()
    told.lines(LINES, EVE)
    for uid in range(2000, 2000 + USERS_MAX):
        told.lines(1, user("x", uid))
    assert told.lines(1, EVE) == []

    told.now += PERIOD_S
    told.lines(1, MALLORY)
    assert list(told.refusals._users) == [MALLORY.uid]
