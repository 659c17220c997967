"""A real Prometheus and a real Alertmanager over a whole lab: the alerts of guests that misbehave arrive, and no others."""

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.monitoring.prometheus import LOOK_S, PROMTOOL, Prometheus, free_port, needs_prometheus, needs_promtool, prometheus
from tests.system.labkit import QUICK, LabHost, running, sim

ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_alertmanager = pytest.mark.skipif(ALERTMANAGER is None, reason="alertmanager is not installed")
RULES = Path(__file__).parents[2] / "etc/prometheus/bhyved.rules.yml"
PATIENCE_S = 90.0

LIMITS = '[restart]\ncrash-limit = "3 in 1h"\nreboot-limit = "1000 in 1h"\nbackoff = "300ms"\nbackoff-max = "300ms"\n'
#: Guest → its file; each is quiet until it is told to misbehave.
GUESTS = {
    "well": sim(),
    "idle": sim(more="autostart = false"),
    "stopped": sim(),
    "crashes": sim(more=LIMITS),
    "reboots": sim(more=LIMITS),
    "stubborn": sim("boot 0.1s; acpi ignore; print login: ; wait", more='[stop]\ntimeout = "500ms"\n'),
    "frozen": sim(),
    "unready": sim(more='[order]\nready = { console = "never printed", timeout = "1h" }\n', boot="uefi-csm"),
}


class Alertmanager:
    """One that runs, and the notifications that it has sent."""

    def __init__(self, port: int, sent: list[dict[str, Any]]) -> None:
        self.port, self._sent = port, sent

    def firing(self) -> set[tuple[str, str]]:
        """Alert and guest of every notification so far."""
        alerts = [alert for notification in self._sent for alert in notification["alerts"] if alert["status"] == "firing"]
        return {(alert["labels"]["alertname"], alert["labels"].get("vm", "")) for alert in alerts}

    def annotation(self, alert: str, key: str) -> str:
        found = [each for sent in self._sent for each in sent["alerts"] if each["labels"]["alertname"] == alert]
        return str(found[0]["annotations"][key])


@contextmanager
def webhook() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Whoever is to be woken: a port, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port, posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def alertmanager(directory: Path) -> Iterator[Alertmanager]:
    assert ALERTMANAGER is not None
    port = free_port()
    with webhook() as (receiver, sent):
        config = directory / "alertmanager.yml"
        config.write_text(f"""
route: {{receiver: us, group_by: [alertname, vm], group_wait: 100ms, group_interval: 200ms, repeat_interval: 1h}}
receivers: [{{name: us, webhook_configs: [{{url: "http://127.0.0.1:{receiver}/", send_resolved: true}}]}}]
""")
        argv = [ALERTMANAGER, f"--config.file={config}", f"--storage.path={directory}/alertmanager", "--cluster.listen-address="]
        with (directory / "alertmanager.log").open("wb") as log:
            child = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield Alertmanager(port, sent)
        finally:
            child.terminate()
            child.wait()


@asynccontextmanager
async def watched(lab: LabHost, directory: Path, alerts_to: int) -> AsyncIterator[Prometheus]:
    """Prometheus on the lab with the shipped rules, whose patience is shortened: what must last must last no time."""
    (directory / "quick.rules.yml").write_text(re.sub(r"\n +for: \w+", "", RULES.read_text()))
    target = lab.metrics.removeprefix("http://").removesuffix("/metrics")
    config = f"""
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [quick.rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{alerts_to}"]}}]}}]}}
scrape_configs: [{{job_name: bhyved, static_configs: [{{targets: ["{target}"]}}]}}]
"""
    async with prometheus(directory, config) as asked:
        yield asked


def until_restarted(lab: LabHost, name: str, cause: str, count: int) -> None:
    lab.until(lambda rows: rows[name]["restarts"][cause] >= count and rows[name]["phase"] == "up", f"{name}: {cause} {count}")


def misbehave(lab: LabHost) -> None:
    """Crash until held, reboot in a loop, be killed, be stopped by hand, be held by hand."""
    lab.ask("stop", "stopped")
    lab.ask("stop", "stubborn")
    lab.ask("hold", "frozen", reason="disk check")
    for name, line, cause, count in (("crashes", "panic", "crash", 3), ("reboots", "reboot", "reboot", 5)):
        for number in range(1, count + 1):
            lab.phase("up", name)
            lab.call("console.send", name=name, text=f"{line}\r")
            until_restarted(lab, name, cause, number)
    lab.phase("up", "crashes")
    lab.call("console.send", name="crashes", text="panic\r")
    lab.phase("held", "crashes")
    lab.phase("down", "stopped", "stubborn")


#: The shipped rules, without patience: a guest that is down by a person's wish is nobody's alert.
EXPECTED = {
    ("BhyveVmHeld", "crashes"),
    ("BhyveVmCrashLoop", "crashes"),
    ("BhyveVmRebootLoop", "reboots"),
    ("BhyveVmForcedStop", "stubborn"),
    ("BhyveVmHoldForgotten", "frozen"),
    ("BhyveVmNotReady", "unready"),
}


@needs_prometheus
@needs_alertmanager
async def test_alerts_arrive(tmp_path: Path) -> None:
    """Each for whom it is about, with the command to type; no guest that is well, or down by somebody's wish, is named."""
    (tmp_path / "p").mkdir()
    with running(GUESTS, daemon=f'{QUICK}[shutdown]\nmargin = "1s"\n') as lab, alertmanager(tmp_path) as manager:
        await trio.to_thread.run_sync(lambda: lab.phase("up", *(GUESTS.keys() - {"idle"})))
        async with watched(lab, tmp_path / "p", manager.port) as asked:
            with trio.fail_after(PATIENCE_S):
                await asked.scraped_again()
            before = await asked.alerts()
            await trio.to_thread.run_sync(misbehave, lab)
            with trio.move_on_after(PATIENCE_S):
                while not manager.firing() >= EXPECTED:  # noqa: ASYNC110 - another process
                    await trio.sleep(LOOK_S)
            now = await asked.alerts()

    guests = {(alert, vm) for alert, vm in manager.firing() if vm}
    assert {vm for _, vm in before if vm} == {"unready"}
    assert guests - {("BhyveVmDown", "crashes"), ("BhyveVmDown", "reboots")} == EXPECTED  # down for a moment, without `for: 5m`
    assert now >= EXPECTED
    assert manager.annotation("BhyveVmCrashLoop", "action") == "vmctl history crashes"


@needs_prometheus
async def test_the_daemons_end_is_an_alert(tmp_path: Path) -> None:
    """Killed, it is down; started again, that it was restarted: its guests are not, and no counter of theirs begins anew."""
    (tmp_path / "p").mkdir()
    always = ("--metrics", f"127.0.0.1:{free_port()}")
    with running({"web1": sim(more=LIMITS)}, options=always) as lab:
        await trio.to_thread.run_sync(lambda: lab.phase("up", "web1"))
        await trio.to_thread.run_sync(lambda: lab.call("console.send", name="web1", text="reboot\r"))
        await trio.to_thread.run_sync(lambda: lab.until(lambda rows: rows["web1"]["restarts"]["reboot"] == 1, "rebooted"))
        await trio.to_thread.run_sync(lambda: lab.phase("up", "web1"))
        async with watched(lab, tmp_path / "p", free_port()) as asked:
            with trio.fail_after(PATIENCE_S):
                await asked.scraped_again()
            await trio.to_thread.run_sync(lab.kill_daemon)
            with trio.fail_after(PATIENCE_S):
                while ("BhyvedDown", "") not in await asked.alerts():  # noqa: ASYNC110 - another process
                    await trio.sleep(LOOK_S)
            await trio.to_thread.run_sync(lab.start)
            with trio.fail_after(PATIENCE_S):
                while ("BhyvedRestarted", "") not in await asked.alerts():  # noqa: ASYNC110 - another process
                    await trio.sleep(LOOK_S)
            assert ("BhyvedDown", "") not in await asked.alerts()
            reboots = await asked.query('bhyved_vm_restarts_total{vm="web1",cause="reboot"}')
            adopted = await asked.query('bhyved_vm_adopted{vm="web1"}')

    assert [float(sample["value"][1]) for sample in reboots] == [1.0]
    assert [float(sample["value"][1]) for sample in adopted] == [1.0]


@needs_promtool
def test_promtool_finds_nothing_in_a_live_scrape() -> None:
    """With guests that run, crash and are down."""
    assert PROMTOOL is not None
    guests = {
        "web1": sim(more='[[network]]\nbridge = "bridge0"\n'),
        "loop1": sim("boot 0.1s; triple-fault", more=LIMITS),
        "idle": GUESTS["idle"],
    }
    with running(guests) as lab:
        lab.phase("up", "web1")
        lab.phase("held", "loop1")
        text = lab.call("daemon.metrics")["text"]
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text.encode(), capture_output=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert 'bhyved_vm_restarts_total{vm="loop1",cause="crash"} 3' in text


def test_a_listener_that_cannot_be_had_costs_nothing_but_itself() -> None:
    """Guests run; the reason is told as an event, by `daemon.info`, by whoever wants a link, and in the metrics that a file still gets."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        why = f"metrics.listen: cannot listen on 127.0.0.1:{taken.getsockname()[1]}: address already in use"
        with running({"web1": sim()}, options=("--metrics", f"127.0.0.1:{taken.getsockname()[1]}")) as lab:
            lab.phase("up", "web1")
            problems = lab.call("daemon.info")["problems"]
            with pytest.raises(RuntimeError, match=re.escape(why)):
                lab.call("web.link")
            metrics = lab.call("daemon.metrics")["text"]

    assert problems == [why]
    assert 'bhyved_problem{part="http"} 1.0' in metrics
