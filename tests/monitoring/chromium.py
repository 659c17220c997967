"""A headless Chromium that is told what to do over a pair of pipes (the DevTools protocol, without a WebSocket)."""

import base64
import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars")


class Browser:
    """One browser with one page."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []

    async def open(self, *, dark: bool = False, width: int = 1200, height: int = 620) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    async def visit(self, url: str) -> None:
        self.events.clear()
        await self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            await self._read()

    async def evaluate(self, script: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, script: str) -> None:
        """Return when the page's expression is true: asked again whenever the page has drawn a frame."""
        await self.evaluate(f"new Promise((done) => {{ const look = () => ({script}) ? done() : setTimeout(look, 20); look(); }})")

    async def screenshot(self) -> bytes:
        """What it looks like, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])

    def complaints(self) -> list[str]:
        """What the page or its policy complained about."""
        logged = [event["params"]["entry"]["text"] for event in self.events if event["method"] == "Log.entryAdded"]
        return logged + [str(event["params"]) for event in self.events if event["method"] == "Runtime.exceptionThrown"]

    def requests(self) -> list[str]:
        return [event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"]

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = await self._read()
            if found.get("id") == self._number:
                assert "error" not in found, found
                result: dict[str, Any] = found["result"]
                return result

    async def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            await trio.lowlevel.wait_readable(self._answers)
            data = os.read(self._answers, 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """A browser with a profile of its own; gone, with all its processes, afterwards."""
    assert CHROMIUM is not None
    commands_in, commands = os.pipe()
    answers, answers_out = os.pipe()
    argv = [CHROMIUM, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={directory}/profile", "about:blank"]
    env = {**os.environ, "HOME": str(directory), "XDG_CONFIG_HOME": str(directory), "XDG_CACHE_HOME": str(directory)}

    def place() -> None:
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands_in, answers_out)]
        for fd, wanted in zip(high, (3, 4), strict=True):  # where Chromium looks for them
            os.dup2(fd, wanted)

    child = subprocess.Popen(
        argv,
        preexec_fn=place,  # noqa: PLW1509 - nothing but dup2 happens there
        close_fds=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    os.close(commands_in)
    os.close(answers_out)
    try:
        yield Browser(commands, answers)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        os.close(commands)
        os.close(answers)
