"""bhyve's command line: which letters there are, what they write into the tree, what is refused and how (contract 1.1 to 1.5)."""

import string

import pytest

from bhyved.lab import options
from bhyved.lab.freebsd import Refusal, Settings
from tests.contract.stand_ins import Lab

RELEASES = {
    ("14", "amd64"): "aehuwxACDHIPSWYk:f:o:p:G:c:s:m:l:K:U:",
    ("15", "amd64"): "aehuwxACDHIPSWYk:f:o:p:G:c:s:m:l:K:U:",
    ("main", "amd64"): "aehuwxACDHIMPSWYk:f:o:p:G:c:s:m:n:l:K:U:",
    ("15", "arm64"): "hCDSWk:f:o:p:c:s:m:U:",
    ("main", "arm64"): "hCDMSWk:f:o:p:G:c:s:m:U:",
}
DUMP = ("-o", "config.dump=1")


def dump(lab: Lab, *argv: str) -> dict[str, str]:
    """The tree that a command line makes."""
    done = lab.call("bhyve", *DUMP, *argv, "web1")
    assert (done.returncode, done.stderr) == (1, "")
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize(("host", "letters"), RELEASES.items(), ids="-".join)
def test_each_release_knows_its_letters_and_no_others(lab: Lab, host: tuple[str, str], letters: str) -> None:
    """An unknown letter is a usage error, status 1."""
    lab.settle(release=host[0], arch=host[1])
    arguments = {"c": "1", "f": "x,string=y", "k": "/dev/null", "n": "id=0,size=1G,cpus=0", "o": "x=y", "p": "0:0", "s": "3,dummy"}
    arguments |= {"G": "1234", "K": "de", "l": "com1,stdio", "m": "1G", "U": "x"}
    settings = Settings(str(lab.root))
    for letter in string.ascii_letters.replace("h", ""):
        at = letters.find(letter)
        argv = [f"-{letter}", *([arguments[letter]] if at >= 0 and letters[at + 1 : at + 2] == ":" else []), "web1"]
        if at >= 0:
            assert options.parse(argv, settings).name == "web1", letter
            continue
        with pytest.raises(Refusal, match=f"^bhyve: illegal option -- {letter}\nUsage: bhyve") as refusal:
            options.parse(argv, settings)
        assert refusal.value.status == 1


@pytest.mark.parametrize(
    ("argv", "status", "begins"),
    [
        ([], 1, "Usage: bhyve"),
        (["web1", "web2"], 1, "Usage: bhyve"),
        (["-m"], 1, "bhyve: option requires an argument -- m\nUsage: bhyve"),
        (["-r", "/x", "web1"], 1, "bhyve: illegal option -- r\nUsage: bhyve"),
        (["-h"], 0, "Usage: bhyve"),
        (["-AZ", "web1"], 1, "bhyve: illegal option -- Z"),
        (["-p", "1", "web1"], 64, "bhyve: invalid vcpu pinning configuration '1'"),
        (["-p", "1:x", "web1"], 64, "bhyve: invalid vcpu pinning configuration '1:x'"),
        (["-c", "x", "web1"], 64, "bhyve: invalid cpu topology 'x'"),
        (["-c", "cpus=1,dies=2", "web1"], 64, "bhyve: invalid cpu topology 'cpus=1,dies=2'"),
        (["-f", "nonsense", "web1"], 64, "bhyve: invalid fwcfg item 'nonsense'"),
        (["-l", "nonsense", "web1"], 64, "bhyve: invalid lpc device configuration 'nonsense'"),
        (["-l", "com5,stdio", "web1"], 64, "bhyve: invalid lpc device configuration 'com5,stdio'"),
        (["-o", "memory.size", "web1"], 64, "bhyve: invalid configuration option 'memory.size'"),
        (["-o", "memory.size=", "web1"], 64, "bhyve: invalid configuration option 'memory.size='"),
        (["-m", "much", "web1"], 64, "bhyve: invalid memsize 'much'"),
        (["-m", "-1", "web1"], 64, "bhyve: invalid memsize '-1'"),
        (["-s", "32,virtio-rnd", "web1"], 4, 'Invalid PCI slot info field "32,virtio-rnd"'),
        (["-s", "3", "web1"], 4, 'Invalid PCI slot info field "3"'),
        (["-s", "3:8,virtio-rnd", "web1"], 4, 'Invalid PCI slot info field "3:8,virtio-rnd"'),
        (["-s", "3,floppy", "web1"], 4, 'pci slot 0:3:0: unknown device "floppy"'),
        (["-s", "3,virtio-rnd", "-s", "0:3:0,virtio-rnd", "web1"], 4, "pci slot 0:3:0 already occupied!"),
        (["-k", "/nowhere", "web1"], 4, "bhyve: Failed to open configuration file /nowhere: No such file or directory"),
        (["-o", "a..b=1", "web1"], 4, "bhyve: Invalid configuration node"),
        (["-o", "a.=1", "web1"], 4, "bhyve: Invalid config node name"),
        (["-o", "a=1", "-o", "a.b=1", "web1"], 4, "bhyve: Configuration node a.b is a child of existing variable a"),
        (["-o", "a.b=1", "-o", "a=2", "web1"], 4, "bhyve: Attempting to add value 2 to existing node a"),
        (["-o", "config.dump=maybe", "web1"], 4, "bhyve: Invalid value maybe for boolean variable config.dump"),
        (["-c", "cpus=4,cores=2", "web1"], 4, "bhyve: Topology (4 sockets, 2 cores, 1 threads) does not match 4 vCPUs"),
        (["-o", "cpus=few", "web1"], 4, "bhyve: Invalid value for cpus: 'few'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_with_a_line_is_said_before_anything_is_touched(lab: Lab, argv: list[str], status: int, begins: str) -> None:
    """Status and text are bhyve's, and there is no node afterwards."""
    done = lab.call("bhyve", *argv)

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(begins)
    assert not lab.has_node()


@pytest.mark.parametrize("word", ["", "h", "he", "hel", "help"])
@pytest.mark.parametrize(("letter", "lists"), [("s", "virtio-blk"), ("l", "com1")])
def test_any_beginning_of_help_is_help(lab: Lab, letter: str, lists: str, word: str) -> None:
    """Even the empty string, with status 0: never pass an empty value."""
    done = lab.call("bhyve", f"-{letter}", word, "web1")

    assert done.returncode == 0
    assert lists in done.stdout.splitlines()


def test_arm64_has_no_pc_devices(lab: Lab) -> None:
    """Its list of models has neither lpc nor passthru."""
    lab.settle(arch="arm64")

    listed = lab.call("bhyve", "-s", "help").stdout.splitlines()

    assert "virtio-blk" in listed
    assert not {"lpc", "passthru", "amd_hostbridge"} & set(listed)


@pytest.mark.parametrize(
    ("argv", "variables"),
    [
        (["-AHPSCw"], {"memory.wired": "true", "memory.guest_in_core": "true", "x86.vmexit_on_hlt": "true", "x86.strictmsr": "false"}),
        (["-xeDuWY"], {"x86.x2apic": "true", "x86.strictio": "true", "destroy_on_poweroff": "true", "rtc.use_localtime": "false"}),
        (["-c", "2"], {"cpus": "2"}),
        (["-c", ""], {"cpus": "1"}),
        (["-c", "sockets=2,cores=2"], {"sockets": "2", "cores": "2"}),
        (["-p", "0:1", "-p", "0:2"], {"vcpu.0.cpuset": "1,2"}),
        (["-G", "w10.0.0.1:1234"], {"gdb.wait": "true", "gdb.address": "10.0.0.1", "gdb.port": "1234"}),
        (["-G", "1234"], {"gdb.port": "1234"}),
        (["-m2G", "-K", "de", "-U", "abc"], {"memory.size": "2G", "keyboard.layout": "de", "uuid": "abc"}),
        (["-l", "COM2,/dev/x"], {"lpc.com2.path": "/dev/x"}),
        (["-l", "bootrom,/a,/b"], {"bootrom": "/a", "bootvars": "/b"}),
        (["-l", "tpm,swtpm,/s"], {"tpm.type": "swtpm", "tpm.path": "/s", "tpm.version": "2.0"}),
        (["-l", "fwcfg,qemu"], {"lpc.fwcfg": "qemu"}),
        (["-s", "3,virtio-blk,/d,nocache,ser=x"], {"pci.0.3.0.path": "/d", "pci.0.3.0.nocache": "true", "pci.0.3.0.ser": "x"}),
        (["-s", "3:1,ahci-hd,/d,ro"], {"pci.0.3.1.device": "ahci", "pci.0.3.1.port.0.type": "hd", "pci.0.3.1.port.0.ro": "true"}),
        (["-s", "1:3:2,ahci-cd,/d"], {"pci.1.3.2.port.0.type": "cd", "pci.1.3.2.port.0.path": "/d"}),
        (["-s", "3,ahci,hd:/a,ro,cd:/b"], {"pci.0.3.0.port.0.ro": "true", "pci.0.3.0.port.1.path": "/b"}),
        (["-s", "3,nvme,ram=64"], {"pci.0.3.0.ram": "64"}),
        (["-s", "3,virtio-net,tap0,mac=58:9c:fc:00:00:01"], {"pci.0.3.0.backend": "tap0", "pci.0.3.0.mac": "58:9c:fc:00:00:01"}),
        (["-s", "3,virtio-9p,share=/srv,ro"], {"pci.0.3.0.sharename": "share", "pci.0.3.0.path": "/srv", "pci.0.3.0.ro": "true"}),
        (["-s", "3,virtio-console,a=/a,b=/b"], {"pci.0.3.0.port.1.name": "b", "pci.0.3.0.port.1.path": "/b"}),
        (["-s", "3,virtio-scsi,/dev/cam/ctl1.0,iid=3"], {"pci.0.3.0.dev": "/dev/cam/ctl1.0", "pci.0.3.0.iid": "3"}),
        (["-s", "29,fbuf,tcp=0.0.0.0:5900,w=800,wait"], {"pci.0.29.0.tcp": "0.0.0.0:5900", "pci.0.29.0.wait": "true"}),
        (["-s", "30,xhci,tablet"], {"pci.0.30.0.slot.1.device": "tablet"}),
        (["-s", "3,passthru,2/0/1"], {"pci.0.3.0.bus": "2", "pci.0.3.0.slot": "0", "pci.0.3.0.func": "1"}),
        (["-s", "3,passthru,ppt0"], {"pci.0.3.0.pptdev": "ppt0"}),
        (["-s", "0,amd_hostbridge"], {"pci.0.0.0.device": "hostbridge", "pci.0.0.0.pcireg.vendor": "0x1022"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_are_variables(lab: Lab, argv: list[str], variables: dict[str, str]) -> None:
    """Every option has its place in the one tree."""
    assert variables.items() <= dump(lab, *argv).items()


def test_the_last_write_wins_whoever_writes(lab: Lab) -> None:
    """Options, files and -o write into one tree, in the order of the command line."""
    file = lab.config(cpus="3")

    assert dump(lab, "-k", str(file), "-c", "2")["cpus"] == "2"
    assert dump(lab, "-c", "2", "-k", str(file))["cpus"] == "3"


def test_the_name_on_the_line_overrides_that_of_the_file(lab: Lab) -> None:
    """The key `name` alone will do as well."""
    file = lab.config(name="other")

    assert dump(lab, "-k", str(file))["name"] == "web1"
    assert "name=other\n" in lab.call("bhyve", *DUMP, "-k", str(file)).stdout


@pytest.mark.parametrize(("release", "root"), [("14", "lpc."), ("15", ""), ("main", "")])
def test_the_bootrom_has_its_releases_spelling(lab: Lab, release: str, root: str) -> None:
    """`-l bootrom` writes `lpc.bootrom` on 14 and `bootrom` later."""
    lab.settle(release=release)

    assert dump(lab, "-l", "bootrom,/a")[f"{root}bootrom"] == "/a"


@pytest.mark.parametrize(("release", "default", "with_a"), [("14", "false", "true"), ("15", "true", "true")])
def test_acpi_tables_are_a_matter_of_the_release(lab: Lab, release: str, default: str, with_a: str) -> None:
    """14 has them with -A only; later -A does nothing."""
    lab.settle(release=release)

    assert dump(lab)["acpi_tables"] == default
    assert dump(lab, "-A")["acpi_tables"] == with_a


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cpus=1\n \n", "line 2: invalid config option ' '"),
        ("cpus\n", "line 1: invalid config option 'cpus'"),
        ("# fine\n\ncpus=\n", "line 3: invalid config option 'cpus='"),
    ],
)
def test_a_bad_line_of_a_file_is_named(lab: Lab, text: str, problem: str) -> None:
    """Only empty lines and those that begin with # may be no variables."""
    file = lab.root / "bad.conf"
    file.write_text(text)

    done = lab.call("bhyve", *DUMP, "-k", str(file), "web1")

    assert (done.returncode, done.stderr) == (4, f"bhyve: {file} {problem}\n")


def test_a_file_may_hold_any_other_name_and_any_value(lab: Lab) -> None:
    """Unknown names, commas and blanks pass; the last of two equal names wins."""
    file = lab.root / "odd.conf"
    file.write_text("mine.note= a,b = c \nmine.note2=x\nmine.note2=y\n")

    tree = dump(lab, "-k", str(file))

    assert tree["mine.note"] == " a,b = c "
    assert tree["mine.note2"] == "y"
