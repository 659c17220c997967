"""News of the host, from a socket like devd's."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from bhyved.host.devd import SOCKET, HostNews

BRIDGE = b"!system=IFNET subsystem=bridge0 type=ATTACH\n"


@pytest.fixture
def devd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(tmp_path / SOCKET))
        server.listen()
        yield server


@pytest.fixture
async def news(tmp_path: Path) -> AsyncIterator[HostNews]:
    news = HostNews(str(tmp_path / SOCKET))
    yield news
    news.close()


async def test_one_thing_that_comes_is_told_once(devd: socket.socket, news: HostNews) -> None:
    """However many messages it is; and the next thing is told again, also when it came before anybody waited."""
    assert news.listen()
    client, _ = devd.accept()
    with client, trio.fail_after(10):
        for _ in range(50):
            client.send(BRIDGE)
        await news.wait()
        with trio.move_on_after(0.2) as nothing:
            await news.wait()
        assert nothing.cancelled_caught
        client.send(BRIDGE)
        assert news.listen()  # the same connection
        await news.wait()


async def test_a_devd_that_goes_is_news(devd: socket.socket, news: HostNews) -> None:
    """The next one is listened to when it is there."""
    assert news.listen()
    devd.accept()[0].close()
    with trio.fail_after(10):
        await news.wait()
        assert news.listen()  # to the next in the queue
        with devd.accept()[0] as client:
            client.send(BRIDGE)
            await news.wait()


async def test_nobody_waits_for_what_is_closed(devd: socket.socket, news: HostNews, nursery: trio.Nursery) -> None:
    """Neither who waits already nor who comes later."""
    assert news.listen()
    over = trio.Event()

    async def wait() -> None:
        await news.wait()
        over.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    news.close()
    with trio.fail_after(10):
        await over.wait()
        await news.wait()


async def test_without_devd_nobody_is_told(news: HostNews) -> None:
    """A jail, the lab, or a host that does not run it."""
    assert not news.listen()
    with trio.fail_after(10):
        await news.wait()
