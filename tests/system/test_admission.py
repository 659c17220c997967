"""A host with little memory, as its operator meets it: guests that wait for room, and what the commands say of that."""

from tests.system.labkit import QUICK, LabHost

DAEMON = QUICK + 'memory-reserve = "1G"\n'


def test_a_guest_waits_for_memory_and_starts_when_there_is_some() -> None:
    """list, why and plan boot say for what; a person's start warns and goes; the end of another lets it in by itself."""
    lab = LabHost({"db1": 'memory = "2G"\n', "web1": 'memory = "2G"\n', "x1": 'memory = "1G"\n'}, daemon=DAEMON)
    lab.settle(physmem=4 << 30)
    with lab:
        lab.phase("up", "db1", "x1")
        rows = lab.until(lambda rows: rows["web1"]["waiting_for"] != "", "web1 says what it waits for")
        wanted = "waiting for memory: needs 2G; 0K of 3G are left beside db1 (2G), x1 (1G)"
        assert rows["web1"]["waiting_for"] == wanted
        assert f"waiting       -         0     1      2G  {wanted}" in lab.vmctl("list")
        assert wanted in lab.vmctl("why", "web1")
        assert "2 guests start, 100 at a time, 0s apart; 1 guest waits for memory" in lab.vmctl("plan", "--boot")

        lab.vmctl("stop", "db1")
        lab.phase("up", "web1")
        started = lab.vmctl("start", "db1")

        assert "db1: up\n" in started
        assert (
            "vmctl: db1: it starts because somebody asked for it, but memory is short: "
            "needs 2G; 0K of 3G are left beside web1 (2G), x1 (1G)\n"
        ) in started
        lab.stop()
