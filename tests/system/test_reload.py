"""A reload as an administrator does it: files are changed, the plan says what would become of it, and that is what becomes of it."""

import socket
import urllib.request

import pytest

from tests.system.labkit import QUICK, running, sim
from tests.waiting import until

OFF = "autostart = false\n"
BRIDGE = '[[network]]\nbridge = "bridge0"\n'
CHANGED = f"""cpus = 2
owner = ["alice"]
{BRIDGE}[graphics]
wait = true
[[serial]]
[[serial]]
port = "com2"
[restart]
backoff = "1s"
"""


def test_what_is_planned_is_what_happens() -> None:
    """A key of each class, a new file and one that has gone: the plan changes nothing, the reload does what the plan said."""
    with running({"web1": sim(), "down": sim(), "gone": sim(), "idle": sim(more=OFF)}, daemon=QUICK) as lab:
        lab.phase("up", "web1", "down", "gone")
        assert lab.ask("stop", "down")["ok"]
        pid = lab.phase("down", "down")["web1"]["pid"]
        lab.write("web1", sim(more=CHANGED))
        lab.write("down", sim(more='owner = ["bob"]\n'))
        lab.write("new", sim())
        lab.write("spare", sim(more=OFF))
        for name in ("gone", "idle"):
            (lab.root / f"etc/vm.d/{name}.toml").unlink()
        main = lab.root / "etc/bhyved.toml"
        main.write_text(main.read_text().replace("start-parallel = 100", "start-parallel = 50") + '\n[console]\nring = "512K"\n')
        before = lab.rows()
        plan = lab.call("config.reload", plan=True)
        assert {name: row["phase"] for name, row in lab.rows().items()} == {name: row["phase"] for name, row in before.items()}
        done = lab.call("config.reload")

        effects = {change["key"]: change["effect"] for change in plan["changed"]["web1"]}
        assert effects == {
            "cpus.sockets": "next-guest-reboot",
            "owner": "live",
            "network[0]": "next-guest-reboot",
            "graphics": "next-guest-reboot",
            "serial[1]": "next-guest-reboot",
            "restart.backoff": "live",
        }
        assert {change["key"]: change["effect"] for change in plan["daemon"]} == {"console.ring": "refused", "start-parallel": "live"}
        assert (plan["added"], plan["starts"], plan["removed"]) == (["new", "spare"], ["new"], ["gone", "idle"])
        assert (plan["orphans"], plan["stops"]) == (["gone"], [])
        assert {**plan, "applied": True} == done
        rows = lab.until(lambda rows: rows["new"]["phase"] == "up" and "idle" not in rows, "the new guest, and the end of the idle one")
        assert (rows["web1"]["pid"], rows["web1"]["config_changed"], rows["web1"]["taps"]) == (pid, True, [])
        assert (rows["down"]["phase"], rows["down"]["desired"], rows["spare"]["phase"]) == ("down", "down", "down")
        assert (rows["gone"]["phase"], rows["gone"]["orphaned"]) == ("up", True)
        assert "bob" in str(lab.call("vm.show", name="down")["spec"]["owner"])
        lab.call("console.send", name="web1", text="reboot\r")
        rows = lab.until(lambda rows: rows["web1"]["phase"] == "up" and rows["web1"]["pid"] != pid, "it has rebooted")
        assert (len(rows["web1"]["taps"]), rows["web1"]["config_changed"]) == (1, False)
        assert [console["port"] for console in lab.call("vm.show", name="web1")["consoles"]] == ["com1", "com2"]
        assert lab.call("config.reload", prune=True)["stops"] == ["gone"]
        lab.until(lambda rows: "gone" not in rows, "it is pruned")
        lab.stop()
        assert lab.leftovers() == []


@pytest.mark.parametrize("broken", ["memory = \n", 'memory = "16M"\ncpu = 2\n', "\x00"])
def test_a_broken_file_changes_nothing(broken: str) -> None:
    """Not in the guest that is meant, nor in any other; the next daemon goes on with what was good."""
    with running({"web1": sim(), "db1": sim()}) as lab:
        pids = {name: row["pid"] for name, row in lab.phase("up", "web1", "db1").items()}
        lab.write("web1", broken)
        lab.write("db1", sim(more='owner = ["alice"]\n'))
        lab.write("new", sim())
        with pytest.raises(RuntimeError, match="the configuration has a problem; nothing has changed"):
            lab.call("config.reload")
        assert set(lab.rows()) == {"web1", "db1"}
        assert lab.call("vm.show", name="db1")["spec"]["owner"] == []
        lab.kill_daemon()
        lab.start()

        assert {name: lab.rows()[name]["pid"] for name in pids} == pids
        assert lab.ask("restart", "web1")["ok"]
        lab.until(lambda rows: rows["web1"]["phase"] == "up" and rows["web1"]["pid"] not in (None, pids["web1"]), "by its last good copy")
        lab.stop()


def test_metrics_are_served_where_the_file_says_now() -> None:
    """Elsewhere, nowhere because the port is taken, nowhere on purpose, and back: no restart of the daemon, and guests do not notice."""
    with running({"web1": sim()}) as lab, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        pid = lab.phase("up", "web1")["web1"]["pid"]
        main, url = lab.root / "etc/bhyved.toml", lab.root / "run/metrics.url"
        text = main.read_text()
        assert 'listen = "127.0.0.1:0"' in text

        def listen(where: str) -> None:
            main.write_text(text.replace('listen = "127.0.0.1:0"', f'listen = "{where}"'))
            (change,) = lab.call("config.reload")["daemon"]
            assert (change["key"], change["effect"]) == ("metrics.listen", "live")

        unix = f"unix:{lab.root}/run/m.sock"
        listen(unix)
        until(lambda: url.exists() and url.read_text().startswith(unix))
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(lab.metrics, timeout=10)
        port = taken.getsockname()[1]
        listen(f"127.0.0.1:{port}")
        until(lambda: any(str(port) in problem for problem in lab.call("daemon.info")["problems"]))
        assert not url.exists()
        taken.close()
        lab.call("config.reload")  # nothing has changed but that
        until(url.exists)
        assert "bhyved_vms" in urllib.request.urlopen(f"{url.read_text().strip().rstrip('/')}/metrics", timeout=10).read().decode()
        assert lab.call("daemon.info")["problems"] == []
        listen("")
        until(lambda: not url.exists())
        with pytest.raises(RuntimeError, match=r"the http server is switched off: metrics\.listen is empty"):
            lab.call("web.link")
        assert lab.rows()["web1"]["pid"] == pid
