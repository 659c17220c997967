"""Resource limits in a whole lab: daemon, vmctl and the stand-in of rctl(8)."""

import subprocess

from tests.system.labkit import QUICK, Connection, LabHost, sim

LIMITS = '[limits]\npcpu = 150\nreadbps = "50M"\n'


def lab(*, racct: int, more: str = LIMITS) -> LabHost:
    """One guest on a host that counts what processes use, or not."""
    host = LabHost({"web1": sim(more=more)}, daemon=QUICK)
    host.settle(sysctl={"kern.racct.enable": racct})
    return host


def rules(host: LabHost, pid: int) -> list[str]:
    return subprocess.run([f"{host.root}/bin/rctl", f"process:{pid}"], check=True, capture_output=True, text=True).stdout.split()


def test_limits_over_reboots_reloads_and_kills() -> None:
    """Each run has its own, a change is in force at once, and so is one that was made while no daemon was there."""
    with lab(racct=1) as host:
        pid = host.phase("up", "web1")["web1"]["pid"]
        until_told(host, "pcpu 150, readbps 50M")
        assert rules(host, pid) == [f"process:{pid}:pcpu:deny=150", f"process:{pid}:readbps:throttle=52428800"]
        assert "its bhyve is limited by rctl(8): pcpu 150, readbps 50M" in host.vmctl("why", "web1")

        host.write("web1", sim(more='[limits]\nreadbps = "10M"\n'))
        assert "in force already" in host.vmctl("reload")
        until_told(host, "readbps 10M")
        assert rules(host, pid) == [f"process:{pid}:readbps:throttle=10485760"]

        host.kill_daemon()
        host.write("web1", sim())
        host.start()
        until_told(host, "no limits")
        assert rules(host, pid) == []
        assert host.rows()["web1"]["pid"] == pid


def test_a_guest_is_not_started_where_its_limits_would_not_hold() -> None:
    """It is held with what to do; without the table it starts; one that runs is not stopped for a table that comes later."""
    with lab(racct=0) as host:
        row = host.phase("held", "web1")["web1"]
        assert "put kern.racct.enable=1 into /boot/loader.conf and reboot it" in row["reason"]
        assert host.leftovers() == []

        host.write("web1", sim())
        host.call("config.reload")
        assert "web1: up" in host.vmctl("start", "web1")
        host.write("web1", sim(more=LIMITS))
        host.call("config.reload")
        rows = host.until(lambda rows: rows["web1"]["unlimited"] != "", "that its limits do not hold")
        assert rows["web1"]["phase"] == "up"
        assert "limits do not hold:" in host.vmctl("list")
        assert "its limits do not hold:" in host.vmctl("why", "web1")


def until_told(host: LabHost, reason: str) -> None:
    """Wait until the daemon has told that these are the guest's limits."""
    connection = Connection(host.socket)
    try:
        connection.call("events.subscribe", since=0)
        while True:
            event = connection.read()["params"]
            if event.get("event") in ("limited", "limits-failed"):
                assert event["event"] == "limited", event["reason"]
                if event["reason"] == reason:
                    return
    finally:
        connection.close()
