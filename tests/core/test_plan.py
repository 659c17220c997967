"""`vmctl plan NAME`: the text, the warnings, the releases, and no secret."""

import shlex

import msgspec
import pytest

from bhyved.core import advice, plan
from bhyved.core.argv import command_line
from bhyved.core.assigned import Assigned, Target, provisional
from bhyved.core.bhyveconf import tree
from bhyved.core.config import Source, load
from bhyved.core.spec import VmSpec

AMD = Target("15", "amd64")


def guest(text: str) -> VmSpec:
    loaded = load(Source("", ""), {"a": Source("a.toml", text)}, {})
    assert loaded.problems == ()
    return loaded.vms["a"]


def planned(text: str, target: Target = AMD) -> plan.Plan:
    spec = guest(text)
    return plan.plan(spec, provisional(spec, arch=target.arch), target, "/run/a")


FULL = (
    'cpus = 2\nmemory = "2G"\n[[disk]]\npath = "/d"\nmodel = "nvme"\n[[cdrom]]\npath = "/iso"\n'
    '[[network]]\nbridge = "bridge0"\nmac = "58:9c:fc:00:00:01"\n[graphics]\npassword-file = "/pw"\n[tpm]\n'
)


def test_limits_come_when_there_is_a_process() -> None:
    """As a person would type them; without limits there is no such part."""
    text = plan.text(planned('[limits]\npcpu = 150\nwritebps = "20M"\n'))

    assert "\n# as soon as it has its PID\nrctl -a process:PID:pcpu:deny=150 process:PID:writebps:throttle=20971520\n" in text
    assert "rctl" not in plan.text(planned(FULL))


def test_the_whole_text() -> None:
    """Everything a start does, in the order in which it happens."""
    assert plan.text(planned(FULL)) == (
        "# a on FreeBSD 15 amd64\n"
        "\n# before the start\n"
        "kldload -n vmm\n"
        "kldload -n nmdm\n"
        "cp -n /usr/local/share/uefi-firmware/BHYVE_UEFI_VARS.fd /var/db/bhyved/vars/a.fd\n"
        "ifconfig tap0 create\n"
        "ifconfig tap0 description vm-a-0 group bhyved\n"
        "ifconfig bridge0 addm tap0\n"
        "ifconfig tap0 up\n"
        "swtpm socket --tpm2 --server type=unixio,path=/var/run/bhyved/vm/a/tpm.sock --tpmstate dir=/run/a/tpm\n"
        "bhyvectl --vm=a --destroy\n"
        "\n# bhyve -k bhyve.conf a, and bhyve.conf is\n"
        "name=a\ncpus=2\nsockets=2\ncores=1\nthreads=1\nmemory.size=2G\nacpi_tables=true\nx86.vmexit_on_hlt=true\n"
        "x86.vmexit_on_pause=true\nx86.strictmsr=false\nrtc.use_localtime=false\n"
        "bootrom=/usr/local/share/uefi-firmware/BHYVE_UEFI.fd\nlpc.bootrom=/usr/local/share/uefi-firmware/BHYVE_UEFI.fd\n"
        "bootvars=/var/db/bhyved/vars/a.fd\nlpc.bootvars=/var/db/bhyved/vars/a.fd\nlpc.com1.path=/dev/nmdm-a.1A\n"
        "tpm.type=swtpm\ntpm.path=/var/run/bhyved/vm/a/tpm.sock\ntpm.version=2.0\n"
        "pci.0.0.0.device=hostbridge\n"
        "pci.0.2.0.device=ahci\npci.0.2.0.port.0.type=cd\npci.0.2.0.port.0.path=/iso\n"
        "pci.0.4.0.device=nvme\npci.0.4.0.path=/d\n"
        "pci.0.10.0.device=virtio-net\npci.0.10.0.backend=tap0\npci.0.10.0.mac=58:9c:fc:00:00:01\n"
        "pci.0.16.0.device=virtio-rnd\n"
        "pci.0.29.0.device=fbuf\npci.0.29.0.tcp=127.0.0.1:5900\npci.0.29.0.w=1024\npci.0.29.0.h=768\npci.0.29.0.password=********\n"
        "pci.0.30.0.device=xhci\npci.0.30.0.slot.1.device=tablet\npci.0.31.0.device=lpc\n"
        "\n# the same as a command line\n"
        "bhyve -H -P -w -u -c cpus=2,sockets=2,cores=1,threads=1 -m 2G -s 0:0:0,hostbridge -s 0:2:0,ahci-cd,/iso -s 0:4:0,nvme,/d "
        "-s 0:10:0,virtio-net,tap0,mac=58:9c:fc:00:00:01 -s 0:16:0,virtio-rnd "
        "-s '0:29:0,fbuf,tcp=127.0.0.1:5900,w=1024,h=768,password=********' -s 0:30:0,xhci,tablet -s 0:31:0,lpc "
        "-l bootrom,/usr/local/share/uefi-firmware/BHYVE_UEFI.fd,/var/db/bhyved/vars/a.fd -l com1,/dev/nmdm-a.1A "
        "-l tpm,swtpm,/var/run/bhyved/vm/a/tpm.sock,version=2.0 a\n"
        "\n# after the run\n"
        "bhyvectl --vm=a --destroy\n"
        "ifconfig tap0 destroy\n"
        "\n# accepted by\n"
        "FreeBSD 15 amd64, FreeBSD main amd64\n"
        "\n# refused by\n"
        "FreeBSD 14 amd64: tpm.type: needs 15 or newer\n"
        'FreeBSD 14 arm64: bhyve runs on arm64 from 15 on; boot.loader: arm64 hosts have "u-boot" only; '
        "tpm: a TPM is an LPC device, and arm64 has no LPC bridge; tpm.type: needs 15 or newer\n"
        'FreeBSD 15 arm64: boot.loader: arm64 hosts have "u-boot" only; tpm: a TPM is an LPC device, and arm64 has no LPC bridge\n'
        'FreeBSD main arm64: boot.loader: arm64 hosts have "u-boot" only; tpm: a TPM is an LPC device, and arm64 has no LPC bridge\n'
    )


def test_no_secret_is_shown() -> None:
    """Neither the password of the host's file nor one in an option gets into the plan."""
    spec = guest('[graphics]\npassword-file = "/pw"\n[bhyve]\noptions = { "pci.0.29.0.password" = "topsecret" }')
    fields = {name: getattr(provisional(spec), name) for name in Assigned.__struct_fields__} | {"vnc_password": "hunter2"}
    found = plan.plan(spec, Assigned(**fields), AMD, "/run/a")
    shown = plan.text(found) + str(plan.data(found))
    assert "hunter2" not in shown
    assert "topsecret" not in shown


def test_the_json_form_has_every_field() -> None:
    """Programs get plain values under kebab-case names."""
    table = plan.data(planned(FULL))
    assert table["vm"] == "a"
    assert table["refused-by"]["FreeBSD 14 amd64"] == ("tpm.type: needs 15 or newer",)
    assert table["slots"]["disk:/d"] == "0:4:0"


def test_a_grub_guest_shows_its_files() -> None:
    """What grub will read is part of the plan."""
    shown = plan.text(planned('[boot]\nloader = "grub"\ngrub = { commands = ["linux (hd0,1)/v"] }\n[[disk]]\npath = "/d"'))
    assert "# device.map\n(hd0) /d\n" in shown
    assert "# grub.cfg\nlinux (hd0,1)/v\nboot\n" in shown
    assert "# loader\ngrub-bhyve -m /run/a/loader/device.map -r host -d /run/a/loader " in shown


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("", Target("14", "amd64"), "bhyve -A -H -P -w -u -c "),
        ('clock = "localtime"', AMD, "bhyve -H -P -w -c "),
        ('[[disk]]\npath = "/a,b"', AMD, "-o pci.0.4.0.device=virtio-blk -o pci.0.4.0.path=/a,b a"),
        ('[[share]]\nname = "n"\npath = "/p=q"', AMD, "-o pci.0.17.0.sharename=n -o pci.0.17.0.path=/p=q a"),
        ('[boot]\nvars = "/p=q"', AMD, "-o bootvars=/p=q"),
        ('[bhyve]\nhostbridge = "amd"', AMD, "-s 0:0:0,amd_hostbridge"),
        (
            '[[disk]]\npath = "/d"\nmodel = "ahci-hd"\nread-only = true\ncontroller = "s"\n[[cdrom]]\npath = "/i"\ncontroller = "s"',
            AMD,
            "-s 0:4:0,ahci,hd:/d,ro,cd:/i",
        ),
        ('wired = true\n[[passthru]]\ndevice = "ppt0"\nrom = "/r"', AMD, "-s 0:20:0,passthru,ppt0,rom=/r"),
        ('cpus = { cores = 2, pin = ["0:2", "1:4-5"] }', AMD, "-p 0:2"),
        ('cpus = { cores = 2, pin = ["0:2", "1:4-5"] }', AMD, "-o vcpu.1.cpuset=4-5"),
        ('[[disk]]\npath = "/d"\nslot = "1:2:0"', AMD, " -Y "),
        ('[bhyve]\noptions = { "lab.script" = "boot; wait" }', AMD, "-o 'lab.script=boot; wait'"),
        ('uuid = "6bc34f7c-1b1e-11ef-8c8a-0242ac120002"', AMD, "-U 6bc34f7c-1b1e-11ef-8c8a-0242ac120002"),
        ('wired = true\n[boot]\nloader = "u-boot"', Target("15", "arm64"), "bhyve -S -c cpus=1"),
        ('[boot]\nloader = "u-boot"', Target("15", "arm64"), "-o console=/dev/nmdm-a.1A a"),
    ],
)
def test_command_line(text: str, target: Target, words: str) -> None:
    """The handbook's form of each setting; what it cannot say is an -o."""
    spec = guest(text)
    assert words in shlex.join(command_line(tree(spec, provisional(spec, arch=target.arch), target), target))


def test_arm64_gets_no_letter_it_refuses() -> None:
    """-H -P -w -u -l -A -K are usage errors there (contract 1.1)."""
    spec = guest('clock = "utc"\n[boot]\nloader = "u-boot"\n[graphics]\nkeyboard = "de"')
    target = Target("main", "arm64")
    argv = command_line(tree(spec, provisional(spec, arch="arm64"), target), target)
    assert not {"-A", "-H", "-P", "-w", "-u", "-l", "-K", "-x", "-Y", "-e"} & set(argv)


WINDOWS = 'clock = "localtime"\n[graphics]\n[[cdrom]]\npath = "/iso"\nwhen = "install"\n'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[graphics]\nlisten = "0.0.0.0:5900"', "graphics.listen"),
        ('[graphics]\nlisten = "[::]:5900"', "graphics.listen"),
        ("[graphics]\nwait = true", "graphics.wait"),
        ('[graphics]\n[boot]\nloader = "grub"\n[[disk]]\npath = "/d"', "graphics"),
        ('[[serial]]\nmode = "tcp"\naddress = "10.0.0.1:4001"', "serial[0].address"),
        ('[[serial]]\nmode = "tcp"\naddress = "127.0.0.1:4001"\n[boot]\nloader = "bhyveload"\n[[disk]]\npath = "/d"', "serial[0].mode"),
        ('serial = []\n[boot]\nloader = "grub"\n[[disk]]\npath = "/d"', "serial"),
        ('[[disk]]\npath = "/a,b"', "disk[0].path"),
        ('[[disk]]\nmodel = "nvme"\nram = "64M"', "disk[0].ram"),
        ('[[network]]\ntap = "tap5"', "network[0].tap"),
        ('[[disk]]\npath = "/d"\nslot = "5:1"', "disk:/d"),
        ('wired = true\n[[passthru]]\ndevice = "2/0/0"', "passthru[0].device"),
        ('clock = "localtime"\ncpus = 4', "cpus"),
        (f"{WINDOWS}[[disk]]\npath = '/d'", "disk[0].model"),
        (f"{WINDOWS}[[disk]]\npath = '/d'\nmodel = 'nvme'\n[[network]]\nbridge = 'b'", "network[0].model"),
        ("[boot]\nkeep-vars = false", "boot.keep-vars"),
        ('[boot]\nloader = "bhyveload"', "boot.loader"),
        ('[boot]\nloader = "grub"', "boot.loader"),
        ('[bhyve]\noptions = { "gdb.wait" = true, "gdb.port" = 1234 }', 'bhyve.options."gdb.wait"'),
        ("[bhyve]\noptions = { acpi_tables = false }", "bhyve.options.acpi_tables"),
        ('[bhyve]\noptions = { "x86.vmexit_on_hlt" = false }', 'bhyve.options."x86.vmexit_on_hlt"'),
        ('[graphics]\nlisten = "unix:/v"', "graphics.listen"),
    ],
)
def test_a_warning(text: str, key: str) -> None:
    """What is legal but will surprise is said, once, under its key; a plain guest gets no warning."""
    assert [found for found, _ in advice.warnings(guest(text), AMD)].count(key) == 1
    assert advice.warnings(guest(""), AMD) == ()


def test_warnings_of_the_host() -> None:
    """More memory or CPUs than the host has; a guest on arm64 that nothing can ask to stop."""
    remarks = advice.warnings(guest('cpus = 8\nmemory = "8G"'), AMD, host_memory=4 << 30, host_cpus=4)
    assert remarks == (("memory", "8G is more than the host has, which is 4G"), ("cpus", "8 vCPUs are more than the host's 4 CPUs"))
    assert [key for key, _ in advice.warnings(guest('[boot]\nloader = "u-boot"'), Target("15", "arm64"))] == ["stop.command"]


@pytest.mark.parametrize(
    ("text", "accepting"),
    [
        ("", "14 amd64, 15 amd64, main amd64"),
        ('[boot]\nloader = "u-boot"', "15 arm64, main arm64"),
        ("[tpm]", "15 amd64, main amd64"),
        ('[tpm]\ntype = "passthru"', "14 amd64, 15 amd64, main amd64"),
        ('[[serial]]\nmode = "tcp"\naddress = "127.0.0.1:4001"', "15 amd64, main amd64"),
        ("[[network]]\nslirp = {}", "15 amd64, main amd64"),
        ("[[network]]\nslirp = { open = true }", "main amd64"),
        ('[graphics]\nlisten = "unix:/v"', "15 amd64, main amd64"),
        ('memory = "1G"\ncpus = { numa = [{ size = "1G", cpus = "0" }] }', "main amd64"),
        ('wired = true\n[boot]\nloader = "u-boot"\n[[passthru]]\ndevice = "ppt0"', ""),
        ('[boot]\nloader = "u-boot"\n[[serial]]\n[[serial]]\nport = "com2"', ""),
    ],
)
def test_releases(text: str, accepting: str) -> None:
    """Which hosts accept a guest, by the version matrix (contract 8.7)."""
    found = [str(target).removeprefix("FreeBSD ") for target, why in advice.releases_accepting(guest(text)).items() if not why]
    assert ", ".join(found) == accepting


def test_a_card_without_a_backend_has_no_option() -> None:
    """The first word after a network model is always its backend: an unplugged card can be said by -o only."""
    argv = planned('network = [{ mac = "58:9c:fc:00:00:01" }]').command

    assert "pci.0.10.0.mac=58:9c:fc:00:00:01" in argv
    assert not any(word.startswith("0:10:0,") for word in argv)


def test_a_disk_in_memory_begins_with_its_size() -> None:
    """`nvme,ram=` is told from a path by its place alone."""
    argv = planned('disk = [{ model = "nvme", ram = "64M", boot-index = 1 }]').command

    assert "0:4:0,nvme,ram=64,bootindex=1" in argv


def test_a_seed_is_shown_without_what_is_secret() -> None:
    """The command that makes it, its drive, and its files: keys that stand in files by the files, the password not at all."""
    text = plan.text(
        planned(
            '[cloud-init]\nuser = "alice"\nssh-keys = ["/keys/alice.pub"]\n'
            'password-hash-file = "/keys/alice.hash"\nmeta-data = "/seed/meta"\n'
        )
    )

    assert "makefs -t cd9660 -o rockridge,label=cidata /var/db/bhyved/cloud-init/a.iso /run/a/seed\n" in text
    assert "pci.0.27.0.device=ahci\npci.0.27.0.port.0.type=cd\npci.0.27.0.port.0.path=/var/db/bhyved/cloud-init/a.iso\n" in text
    assert "-s 0:27:0,ahci-cd,/var/db/bhyved/cloud-init/a.iso" in text
    assert "\n# meta-data of the cloud-init seed\n(/seed/meta, as it is)\n" in text
    assert (
        '\n# user-data of the cloud-init seed\n#cloud-config\nusers:\n  - name: "alice"\n    sudo: "ALL=(ALL) NOPASSWD:ALL"\n'
        '    lock_passwd: false\n    passwd: "********"\n    ssh_authorized_keys:\n      - "(each key in /keys/alice.pub)"\n'
    ) in text


def test_a_seed_that_lets_nobody_in_is_pointed_out() -> None:
    """Neither key nor password; a file of one's own may have either."""
    said = "cloud-init: nobody is told how to log in: there are neither ssh-keys nor password-hash-file"

    assert planned("[cloud-init]").warnings == (said,)
    assert planned('[cloud-init]\nssh-keys = ["/keys/alice.pub"]').warnings == ()
    assert planned('[cloud-init]\nuser-data = "/seed/user"').warnings == ()


def test_without_a_seed_nothing_is_said_of_it() -> None:
    """Nor of one that is not attached any more."""
    spec = guest('[cloud-init]\nuser-data = "/seed/user"')
    away = msgspec.structs.replace(provisional(spec), seed="")
    for text in (plan.text(planned("")), plan.text(plan.plan(spec, away, AMD, "/run/a"))):
        assert "makefs" not in text
        assert "cloud-init" not in text


def test_a_guest_that_cannot_be_suspended_with_the_host_says_so() -> None:
    """It would be stopped instead, which its file does not say."""
    wants = '[stop]\non-host-shutdown = "suspend"\n'
    nvme = 'memory = "1G"\n[[disk]]\npath = "/d"\nmodel = "nvme"\n'

    (warning,) = [each for each in planned(nvme + wants).warnings if "on-host-shutdown" in each]
    assert warning.startswith("stop.on-host-shutdown: bhyve cannot save a disk with model")
    assert warning.endswith("; it is stopped instead")
    assert not [each for each in planned(nvme).warnings if "on-host-shutdown" in each]
