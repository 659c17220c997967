"""A real Prometheus in a directory, which scrapes quickly and is asked over HTTP."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from tests.ports import free_port

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")

needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")

LOOK_S = 0.1


class Prometheus:
    """Asks one that runs."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def get(self, path: str) -> tuple[int, bytes]:
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode())
            data = b"".join([part async for part in stream])
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        _, body = await self.get(f"/api/v1/query?query={quote(expression)}")
        answer = json.loads(body)
        assert answer["status"] == "success", f"{expression}: {answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def alerts(self) -> set[tuple[str, str]]:
        """Firing alerts, and the guest or part that each is about."""
        _, body = await self.get("/api/v1/alerts")
        firing = [alert["labels"] for alert in json.loads(body)["data"]["alerts"] if alert["state"] == "firing"]
        return {(labels["alertname"], labels.get("vm") or labels.get("part") or labels.get("command") or "") for labels in firing}

    async def scrapes(self) -> int:
        """How many scrapes it has stored."""
        found = await self.query('count_over_time(up{job="bhyved"}[1h])')
        return int(float(found[0]["value"][1])) if found else 0

    async def scraped_again(self) -> None:
        """Return when two more scrapes have been stored."""
        before = await self.scrapes()
        while await self.scrapes() < before + 2:  # noqa: ASYNC110 - another process
            await trio.sleep(LOOK_S)


@asynccontextmanager
async def prometheus(directory: Path, config: str) -> AsyncIterator[Prometheus]:
    """One with this configuration, ready; ended afterwards."""
    port = free_port()
    child, log = _start(directory, config, port)
    try:
        asked = Prometheus(port)
        with trio.fail_after(30):
            while not await _is_ready(asked):
                assert child.poll() is None, log.read_text()
                await trio.sleep(LOOK_S)
        yield asked
    finally:
        child.terminate()
        child.wait()


def _start(directory: Path, config: str, port: int) -> tuple["subprocess.Popen[bytes]", Path]:
    assert PROMETHEUS is not None
    (directory / "prometheus.yml").write_text(config)
    argv = [PROMETHEUS, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    argv += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.size=64MB"]
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        return subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, cwd=directory), log


async def _is_ready(asked: Prometheus) -> bool:
    try:
        return (await asked.get("/-/ready"))[0] == 200
    except OSError:
        return False
