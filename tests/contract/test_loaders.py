"""bhyveload and grub-bhyve: statuses, texts, prompts (contract 2.2, 2.3)."""

import signal

import pytest

from tests.contract.stand_ins import Lab


@pytest.mark.parametrize(
    ("argv", "status", "begins"),
    [
        ([], 1, "usage: bhyveload"),
        (["a", "b"], 1, "usage: bhyveload"),
        (["-x", "web1"], 1, "bhyveload: illegal option -- x\nusage: bhyveload"),
        (["-m", "much", "web1"], 64, "bhyveload: Invalid memsize 'much'"),
        (["-d", "/nowhere", "web1"], 64, "bhyveload: Could not open '/nowhere'"),
        (["-c", "/nowhere", "web1"], 64, "bhyveload: Could not open '/nowhere'"),
        (["-l", "/a", "-l", "/b", "web1"], 64, "bhyveload: -l can only be given once"),
        (["-l", "/nowhere", "web1"], 1, "bhyveload: dlopen: /nowhere: No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_bhyveload_refuses(lab: Lab, argv: list[str], status: int, begins: str) -> None:
    """64 for what it cannot open or read, 1 for the rest."""
    done = lab.call("bhyveload", *argv)

    assert done.returncode == status
    assert done.stderr.startswith(begins)


def test_a_kernel_is_loaded_and_runs(lab: Lab) -> None:
    """Loader and bhyve use the same console, one after the other."""
    console = lab.console()
    loader = lab.spawn("bhyveload", "-m", "16M", "-c", console.path, "web1", console=console)
    console.wait_for("booting...")
    assert loader.ended() == 0
    file = lab.config(has_rom=False, lpc__com1__path=console.path)

    lab.spawn("bhyve", "-k", str(file), "web1", console=console)

    console.wait_for("login: ")


@pytest.mark.parametrize(("told", "status"), [("exit 1", 1), ("exit 2", 2), ("slow 0.1s; print late; exit 2", 2)])
def test_bhyveload_ends_as_it_is_told(lab: Lab, told: str, status: int) -> None:
    """The knob lab.loader."""
    assert lab.call("bhyveload", "-e", f"lab.loader={told}", "web1").returncode == status


def test_bhyveload_may_hang_until_it_is_killed(lab: Lab) -> None:
    """The node stays, without CPUs, and can be used again."""
    console = lab.console()
    loader = lab.spawn("bhyveload", "-c", console.path, "-e", "lab.loader=hang", "web1", console=console)
    console.wait_for("User boot")

    loader.send(signal.SIGTERM)

    assert loader.ended() == -signal.SIGTERM
    assert lab.has_node()
    assert lab.call("bhyveload", "web1").returncode == 0


@pytest.mark.parametrize(("command", "status"), [("boot", 0), ("quit", 1), ("reboot", 2)])
def test_a_key_stops_the_countdown_for_ever(lab: Lab, command: str, status: int) -> None:
    """Then it is the prompt that decides."""
    console = lab.console()
    loader = lab.spawn("bhyveload", "-c", console.path, "-e", "autoboot_delay=60", "web1", console=console)
    console.wait_for("60 seconds")
    console.type(" ")
    console.wait_for("OK ")
    console.type("dance\r")
    console.wait_for("unknown command dance\r\nOK ")

    console.type(f"{command}\r")

    assert loader.ended() == status


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (["bhyveload", "-m", "16M", "web1"], "vm_reinit: Device busy\n"),
        (["grub-bhyve", "-M", "16M", "web1"], "Could not reinit VM web1\nError in initializing VM\n"),
    ],
)
def test_a_busy_node_is_refused(lab: Lab, loader: list[str], text: str) -> None:
    """While its guest runs, and after it was killed."""
    bhyve = lab.start().wait_titled()
    for _ in range(2):
        done = lab.call(*loader)
        assert (done.returncode, done.stderr) == (1, text)
        bhyve.kill()


@pytest.mark.parametrize(
    ("loader", "text"),
    [
        (["bhyveload", "-m", "32M", "web1"], "vm_setup_memory: Invalid argument\n"),
        (["grub-bhyve", "-M", "32M", "web1"], "Could not setup memory for VM\nError in initializing VM\n"),
    ],
)
def test_a_node_of_another_size_is_refused(lab: Lab, loader: list[str], text: str) -> None:
    """The size is fixed when the node is made."""
    lab.call("bhyveload", "-m", "16M", "web1")

    done = lab.call(*loader)

    assert (done.returncode, done.stderr) == (1, text)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "Required VM name parameter not supplied\n"),
        (["-M", "much", "web1"], "Invalid guest memory size `much'.\n"),
        (["-x", "web1"], "Error in parsing command line arguments\n"),
    ],
)
def test_what_grub_refuses(lab: Lab, argv: list[str], text: str) -> None:
    """Always with status 1."""
    done = lab.call("grub-bhyve", *argv)

    assert done.returncode == 1
    assert done.stderr.endswith(text)


def test_grub_needs_an_unrestricted_guest(lab: Lab) -> None:
    """As it starts the guest in real mode."""
    lab.settle(unrestricted_guest=False)

    done = lab.call("grub-bhyve", "web1")

    assert (done.returncode, done.stderr) == (1, "VM unrestricted guest capability required\nError in initializing VM\n")


def grub(lab: Lab, config: str) -> list[str]:
    """The words for a grub.cfg on the host."""
    (lab.root / "grub.cfg").write_text(config)
    return ["-r", "host", "-d", str(lab.root), "-M", "16M", "web1"]


def loaded(lab: Lab) -> bool:
    """Whether there is something to run in the VM."""
    return lab.start(has_rom=False, lab__script="poweroff").ended() == 1


def test_grub_follows_its_configuration(lab: Lab) -> None:
    """A kernel on the guest's disk is taken to be there."""
    done = lab.call("grub-bhyve", *grub(lab, "# mine\nlinux (hd0,1)/vmlinuz root=/dev/vda1\ninitrd (hd0,1)/initrd\nboot\n"))

    assert done.returncode == 0
    assert loaded(lab)


@pytest.mark.parametrize("config", ["reboot\n", "linux (hd0,1)/vmlinuz\nexit\n"])
def test_grub_says_0_without_a_kernel_too(lab: Lab, config: str) -> None:
    """Exit 0 does not prove that one is loaded."""
    assert lab.call("grub-bhyve", *grub(lab, config)).returncode == 0
    assert not loaded(lab)


@pytest.mark.parametrize("config", ["", "linux (host)/nowhere\nboot\n", "linux (hd0,1)/vmlinuz\n"])
def test_grub_waits_at_its_prompt_for_ever(lab: Lab, config: str) -> None:
    """Without commands, without the kernel they name, without `boot`. SIGINT does not end it, SIGTERM does."""
    console = lab.console()
    waiting = lab.spawn("grub-bhyve", "-c", console.path, *grub(lab, config), console=console)
    console.wait_for("grub> ")

    waiting.send(signal.SIGINT)
    console.type("echo alive\r")
    console.wait_for("echo alive\r\nalive\r\ngrub> ")
    waiting.send(signal.SIGTERM)

    assert waiting.ended() == -signal.SIGTERM


def test_grub_obeys_at_its_prompt(lab: Lab) -> None:
    """As vm-bhyve's users do by hand."""
    console = lab.console()
    waiting = lab.spawn("grub-bhyve", "-M", "16M", "-c", console.path, "web1", console=console)
    for command in ("boot", "linux (hd0,1)/vmlinuz", "boot"):
        console.wait_for("grub> ")
        console.type(f"{command}\r")

    assert waiting.ended() == 0
    assert loaded(lab)


@pytest.mark.parametrize(("there", "ends"), [(True, True), (False, False)])
def test_a_guests_own_configuration_is_on_its_disk(lab: Lab, there: bool, ends: bool) -> None:
    """It boots if the drive is in the device map and its file exists; else there is the prompt."""
    disk = lab.root / "disk.img"
    if there:
        disk.write_bytes(bytes(512))
    devices = lab.root / "device.map"
    devices.write_text(f"(hd0) {disk}\n(cd0) /nowhere\n")
    console = lab.console()

    waiting = lab.spawn("grub-bhyve", "-m", str(devices), "-r", "hd0,gpt2", "-c", console.path, "web1", console=console)

    if ends:
        assert waiting.ended() == 0
    else:
        console.wait_for("grub> ")


def test_arm64_has_no_loaders(lab: Lab) -> None:
    """Its only firmware is U-Boot (contract 2.5)."""
    lab.settle(arch="arm64")

    assert lab.call("bhyveload", "web1").returncode == 1
