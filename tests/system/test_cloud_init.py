"""`[cloud-init]` in a whole installation: a drive that comes and goes, a reload that says when, and nobody who sees what is secret."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.labkit import BHYVED, PATIENCE_S, LabHost, running, sim
from tests.system.test_hooks import until_event

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKtest alice"
HASH = "$6$sAlTsAlT$VerySecretVerySecret"
READY = '[order]\nready = { console = "login:" }\n'
FIRST = '[cloud-init]\nwhen = "first"\n'


@pytest.fixture(autouse=True)
def _writer_of_images() -> None:
    if shutil.which("xorriso") is None:
        pytest.skip("xorriso is not installed")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabHost]:
    """A guest that is given its seed until it has been ready once, and one that is not asked."""
    keys, hashed = tmp_path / "alice.pub", tmp_path / "alice.hash"
    keys.write_text(f"{KEY}\n")
    hashed.write_text(f"{HASH}\n")
    hashed.chmod(0o600)
    more = f'{FIRST}user = "alice"\nssh-keys = ["{keys}"]\npassword-hash-file = "{hashed}"\n{READY}'
    with running({"web1": sim(more=more)}) as made:
        yield made


def image(lab: LabHost, name: str = "web1") -> Path:
    return lab.root / f"db/cloud-init/{name}.iso"


def conf(lab: LabHost, name: str = "web1") -> str:
    return (lab.root / f"run/vm/{name}/bhyve.conf").read_text()


def ready(lab: LabHost, name: str = "web1") -> str:
    """Wait until the guest is ready; its run."""
    run: str = lab.until(lambda rows: rows[name]["ready"], f"{name} is ready")[name]["run"]
    return run


def rebooted(lab: LabHost, name: str = "web1") -> None:
    """The guest reboots by itself, and is ready again."""
    before = ready(lab, name)
    lab.call("console.send", name=name, text="reboot\n")
    lab.until(lambda rows: rows[name]["run"] not in ("", before) and rows[name]["ready"], f"{name} is ready again")


def test_a_seed_is_there_until_the_guest_is_ready(lab: LabHost) -> None:
    """Then drive and image go with the next run, and come back when what is in the seed changes; a reload says when."""
    ready(lab)
    assert f"pci.0.27.0.port.0.path={image(lab)}\n" in conf(lab)
    assert f'ssh_authorized_keys:\n      - "{KEY}"\n'.encode() in image(lab).read_bytes()

    rebooted(lab)
    assert "cloud-init" not in conf(lab)
    assert not image(lab).exists()
    assert "has been set up" in lab.call("vm.plan", name="web1")["text"]

    path = lab.root / "etc/vm.d/web1.toml"
    path.write_text(path.read_text().replace(FIRST, f'{FIRST}packages = ["nginx"]\n'))
    (change,) = lab.call("config.reload")["changed"]["web1"]
    assert (change["key"], change["new"], change["effect"]) == ("cloud-init.packages", ["nginx"], "next-guest-reboot")
    assert lab.rows()["web1"]["config_changed"]
    rebooted(lab)
    assert f"pci.0.27.0.port.0.path={image(lab)}\n" in conf(lab)
    assert b'packages:\n  - "nginx"\n' in image(lab).read_bytes()


def test_a_daemon_that_is_killed_knows_what_it_attached(lab: LabHost) -> None:
    """The guest becomes ready under the next one, and that counts."""
    ready(lab)
    rebooted(lab)
    lab.write("web2", sim("boot 0.1s; acpi on; wait", more=FIRST))
    lab.call("config.reload")
    lab.phase("up", "web2")
    lab.kill_daemon()
    lab.start()
    lab.phase("up", "web2")
    lab.ask("stop", "web2")
    lab.phase("down", "web2")
    assert image(lab, "web2").exists()

    lab.ask("start", "web2")
    lab.phase("up", "web2")

    assert "cloud-init" not in conf(lab, "web2")
    assert not image(lab, "web2").exists()


def test_nobody_sees_the_password(lab: LabHost) -> None:
    """Its hash is in the image alone: not in a plan, a record, a log, a copy of the configuration."""
    ready(lab)
    assert HASH.encode() in image(lab).read_bytes()
    assert image(lab).stat().st_mode & 0o777 == 0o600

    told = str([lab.call("vm.plan", name="web1"), lab.call("vm.show", name="web1"), lab.call("vm.history", name="web1")])
    assert HASH not in told
    seen = [path for path in lab.root.rglob("*") if path.is_file() and HASH.encode() in path.read_bytes()]
    assert seen == [image(lab)]


def test_a_guest_that_is_forgotten_leaves_no_image(lab: LabHost) -> None:
    """Its file has gone, and what was made of it goes too."""
    ready(lab)
    (lab.root / "etc/vm.d/web1.toml").unlink()
    lab.call("config.reload", prune=True)
    until_event(lab, "forgotten", "web1")

    assert not image(lab).exists()


def test_a_file_that_is_wrong_refuses_the_reload(lab: LabHost, tmp_path: Path) -> None:
    """As `check` does, with and without a daemon: the line, the key, the file and what is wrong with it."""
    script = tmp_path / "user-data"
    script.write_text("packages: [nginx]\n")
    lab.write("web2", f'[cloud-init]\nuser-data = "{script}"\n')
    said = 'must begin with the line "#cloud-config", or with "#!" as a script; it begins with \'packages: [nginx]\''

    with pytest.raises(RuntimeError, match="the configuration has a problem; nothing has changed"):
        lab.call("config.reload")
    assert lab.rows().keys() == {"web1"}
    (problem,) = lab.call("config.check")["problems"]
    assert problem.startswith(f"{lab.root}/etc/vm.d/web2.toml:2: cloud-init.user-data: ")
    assert problem.endswith(said)
    checked = subprocess.run(
        [*BHYVED, "check", "-c", f"{lab.root}/etc/bhyved.toml"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (checked.returncode, problem in checked.stderr) == (78, True)
