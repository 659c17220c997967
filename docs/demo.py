"""`make demo`: one afternoon of a host in half a minute, told with the commands that a person would type.

Real guests under QEMU where it is installed, scripted ones otherwise. Every claim is checked: when one of them does not hold, the
demo says which, and fails. What it leaves is nothing.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

BIN = Path(sys.executable).parent
PATIENCE_S = 60.0
QEMU = "qemu-system-x86_64"
RULES = Path(__file__).parent.parent / "etc/prometheus/bhyved.rules.yml"

GUEST = """\
# {what}
memory = "16M"
autostart = {autostart}
{order}
[boot]
loader = "uefi-csm"     # BIOS firmware: the demo's guests are boot sectors

[restart]
crash-limit = "3 in 1m" # after that a person must look
backoff = "300ms"
backoff-max = "1s"
"""
MAIN = """\
start-parallel = 10
start-gap = "0s"
"""
ABOUT_LAB1 = r'_(up|desired_up|attempts_left)\{vm="lab1"|"lab1",(phase="held"|cause="crash")'
PROMETHEUS = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs: [{{job_name: bhyved, static_configs: [{{targets: ["{target}"]}}]}}]
"""


class Demo:
    """The lab and what is typed at it."""

    def __init__(self, root: Path, engine: str) -> None:
        self.root, self.engine = root, engine
        self.target = f"127.0.0.1:{free_port()}"
        self.metrics = f"http://{self.target}/metrics"
        self._foreground: subprocess.Popen[str] | None = None

    # --- what the reader sees ------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        print(f"\n\x1b[1m# {text}\x1b[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)

    def type(self, *words: str, status: int = 0, show: bool = True) -> str:
        """A command as one would type it, and what it prints."""
        line = " ".join(f"'{word}'" if " " in word else word for word in words)
        print(f"$ {line}", flush=True)
        environment = {**os.environ, "BHYVED_SOCKET": str(self.root / "run/control.sock"), "COLUMNS": "100"}
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]], capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False
        )
        output = done.stdout + done.stderr
        if show:
            print(output.replace(str(self.root), "…"), end="", flush=True)
        self.check(done.returncode == status, f"`{line}` ended with status {done.returncode}, not {status}")
        return output

    def check(self, holds: bool, claim: str) -> None:
        if not holds:
            self.fail(claim)

    def fail(self, claim: str) -> NoReturn:
        print(f"\ndemo: it did not happen: {claim}", file=sys.stderr)
        raise SystemExit(1)

    # --- the lab -------------------------------------------------------------------------------------------------------------

    def write(self, name: str, what: str, *, autostart: bool = True, order: str = "") -> None:
        path = self.root / f"etc/vm.d/{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(GUEST.format(what=what, autostart=str(autostart).lower(), order=order))

    def start(self) -> None:
        main = self.root / "main.toml"
        main.write_text(MAIN)
        argv = [
            str(BIN / "bhyved"),
            "lab",
            "--root",
            str(self.root),
            "--guest",
            self.engine,
            "--metrics",
            self.target,
            "--config",
            str(main),
        ]
        self._foreground = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._foreground.stdout is not None
        line = self._foreground.stdout.readline()
        if not line.startswith("ready "):
            self.fail(f"the lab starts: {line}{self._foreground.communicate()[0]}")

    def kill_daemon(self) -> None:
        assert self._foreground is not None
        os.kill(int((self.root / "run/bhyved.pid").read_text()), signal.SIGKILL)
        self.check(self._foreground.wait(PATIENCE_S) != 0, "the daemon was killed, and the lab did not notice")

    def stop(self) -> None:
        assert self._foreground is not None
        self._foreground.send_signal(signal.SIGTERM)
        said = self._foreground.communicate(timeout=PATIENCE_S)[0]
        self.check(self._foreground.returncode == 0, f"the daemon did not stop in peace: {said}")

    def rows(self) -> dict[str, dict[str, Any]]:
        environment = {**os.environ, "BHYVED_SOCKET": str(self.root / "run/control.sock")}
        output = subprocess.run([str(BIN / "vmctl"), "list", "--json"], capture_output=True, env=environment, check=True).stdout
        return {row["name"]: row for row in json.loads(output)["vms"]}

    def clean(self) -> None:
        if self._foreground is not None and self._foreground.poll() is None:
            self._foreground.kill()
            self._foreground.wait()
        subprocess.run([str(BIN / "bhyved"), "lab", "--root", str(self.root), "--destroy"], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def tell(demo: Demo, asked: str) -> None:
    """The story. `asked`: where Prometheus answers."""
    real = demo.engine == "qemu"
    demo.say(
        "Three guests, one small TOML file each."
        + (" They are real: boot sectors in QEMU." if real else " No QEMU here: they are scripted.")
    )
    demo.write("db1", "The database.")
    demo.write("web1", "Starts when the database is up.", order='[order]\nafter = ["db1"]\n')
    demo.write("lab1", "Nobody trusts this one.")
    print((demo.root / "etc/vm.d/web1.toml").read_text())
    demo.start()
    for name in ("db1", "web1", "lab1"):
        wait(demo, name, "up")
    demo.say("The daemon boots them in order.")
    demo.type("vmctl", "list")
    rows = demo.rows()
    demo.check(all(row["phase"] == "up" for row in rows.values()), "every guest is up")

    demo.say("Their consoles have been recorded from the first byte, though nobody was looking.")
    hello = "clean" if real else "login:"
    demo.type("vmctl", "console", "web1", "--wait-for", hello, "--timeout", "20s", show=False)
    log = demo.type("vmctl", "log", "web1")
    demo.check(hello in log, f"the console of web1 says {hello!r}")

    if asked:
        seen(demo, asked)
    demo.say("A guest crashes. It is started again, after a short back-off.")
    crash(demo, real, runs=1)
    wait(demo, "lab1", "up")
    demo.type("vmctl", "why", "lab1")

    demo.say("The daemon is killed with SIGKILL. Its guests do not notice; the next daemon takes them up, with the same processes.")
    before = {name: row["pid"] for name, row in demo.rows().items()}
    print("$ kill -9 $(cat run/bhyved.pid); service bhyved start")
    demo.kill_daemon()
    demo.start()
    demo.type("vmctl", "list")
    after = demo.rows()
    demo.check({name: row["pid"] for name, row in after.items()} == before, "every guest kept its process")
    demo.check(all(row["adopted"] for row in after.values()), "every guest was adopted")

    demo.say("The untrusted guest goes on crashing: over its limit it is held, and says why.")
    for runs in (2, 3, 4):
        crash(demo, real, runs)
    wait(demo, "lab1", "held")
    why = demo.type("vmctl", "why", "lab1")
    demo.check("crash-limit" in why, "why names the crash limit")

    demo.say("Monitoring sees it too: a scrape, and the alerts that it raises.")
    print(f"$ curl -s {demo.metrics} | grep -E '{ABOUT_LAB1}'")
    with urllib.request.urlopen(demo.metrics, timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if re.search(ABOUT_LAB1, line)]
    print("\n".join(lines))
    demo.check('bhyved_vm_phase{vm="lab1",phase="held"} 1' in lines, "the metrics show lab1 as held")
    alerts(demo, asked)

    demo.say("Everybody is stopped by the power button, in reverse order, and the daemon ends.")
    demo.stop()
    log = (demo.root / "log/bhyved.log").read_text()
    demo.check("kind=poweroff" in log, "the guests shut themselves down")
    print("all guests powered themselves off; nothing is left")


def crash(demo: Demo, real: bool, runs: int) -> None:
    """Make lab1 crash, and wait until that has been noticed."""
    wait(demo, "lab1", "up")
    ready = "> " if real else "login:"
    demo.type("vmctl", "console", "lab1", "--wait-for", ready, "--timeout", "20s", show=False)
    demo.type("vmctl", "console", "lab1", "--send", "t" if real else "panic\n", show=False)
    deadline = time.monotonic() + PATIENCE_S
    while (row := demo.rows()["lab1"])["restarts"]["crash"] < runs and row["phase"] != "held":
        demo.check(time.monotonic() < deadline, "the crash was noticed")


def wait(demo: Demo, name: str, phase: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while demo.rows()[name]["phase"] != phase:
        demo.check(time.monotonic() < deadline, f"{name} is {phase}")


def seen(demo: Demo, asked: str) -> None:
    """Wait until Prometheus has scraped lab1: what grows before is no growth to it."""
    deadline = time.monotonic() + PATIENCE_S
    url = f"http://{asked}/api/v1/query?query=bhyved_vm_up"
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
            if any(sample["metric"]["vm"] == "lab1" for sample in json.load(answer)["data"]["result"]):
                return
        demo.check(time.monotonic() < deadline, "Prometheus has scraped the daemon")
        time.sleep(0.1)


def alerts(demo: Demo, asked: str) -> None:
    """What Prometheus makes of it, by the rules that a user installs."""
    if not asked:
        print("Prometheus is not installed here; these of the shipped rules are about lab1 now:")
        for found in re.finditer(r"- alert: (\w*(?:Held|CrashLoop))\n\s*expr: (.*)", RULES.read_text()):
            print(f"  {found[1]}: {found[2]}")
        return
    url = f"http://{asked}/api/v1/alerts"
    print(f"Prometheus, with the shipped rules, at http://{asked}/alerts:")
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = {alert["labels"]["alertname"]: alert for alert in json.load(answer)["data"]["alerts"]}
        if found.keys() >= {"BhyveVmCrashLoop", "BhyveVmHeld"} and found["BhyveVmCrashLoop"]["state"] == "firing":
            break
        demo.check(time.monotonic() < deadline, f"the alerts about lab1 come, not only {sorted(found)}")
        time.sleep(0.1)
    for name in ("BhyveVmCrashLoop", "BhyveVmHeld"):
        alert = found[name]
        print(f"{name}: {alert['state']}, {alert['labels']['severity']}")
        for key in ("summary", "action"):
            print(f"  {key}: {alert['annotations'][key]}")
        demo.check(alert["labels"]["vm"] == "lab1", f"{name} is about lab1")


@contextlib.contextmanager
def watched(demo: Demo) -> Iterator[str]:
    """A Prometheus with the shipped rules that scrapes the demo; its address, or '' where it is not installed."""
    if shutil.which("prometheus") is None:
        yield ""
        return
    directory, address = demo.root / "prometheus", f"127.0.0.1:{free_port()}"
    directory.mkdir()
    (directory / "prometheus.yml").write_text(PROMETHEUS.format(rules=RULES, target=demo.target))
    argv = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    with (directory / "log").open("wb") as log:
        child = subprocess.Popen([*argv, f"--web.listen-address={address}"], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield address
    finally:
        child.terminate()
        child.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    engine = "qemu" if shutil.which(QEMU) else "sim"
    demo = Demo(Path(tempfile.mkdtemp(prefix="bhd")), engine)
    began = time.monotonic()
    try:
        with watched(demo) as asked:
            tell(demo, asked)
    finally:
        with contextlib.suppress(Exception):
            demo.clean()
    print(f"\ndemo: all of it happened, in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
