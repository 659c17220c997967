"""What reaches bhyve: the file of a run, feature by feature."""

import pytest

from bhyved.core import bhyveconf
from bhyved.core.assigned import Assigned, Target, provisional
from bhyved.core.bhyveconf import ConfError, render, tree
from bhyved.core.config import Source, load
from bhyved.core.spec import VmSpec

AMD = Target("15", "amd64")
ARM = Target("15", "arm64")
BARE = "serial = []\n[random]\nenabled = false\n"


def guest(text: str) -> VmSpec:
    loaded = load(Source("", ""), {"a": Source("a.toml", text)}, {"bare": Source("bare.toml", BARE)})
    assert loaded.problems == ()
    return loaded.vms["a"]


def rendered(text: str, target: Target = AMD, **given: object) -> dict[str, str]:
    spec = guest(text)
    assigned = provisional(spec, arch=target.arch, install=bool(given.pop("install", False)))
    fields = {name: getattr(assigned, name) for name in Assigned.__struct_fields__} | given
    return tree(spec, Assigned(**fields), target)


def added(text: str, target: Target = AMD, **given: object) -> dict[str, str]:
    """The variables that a bare guest does not have, or has otherwise."""
    plain = rendered('template = "bare"', target)
    return {key: value for key, value in rendered(f'template = "bare"\n{text}', target, **given).items() if plain.get(key) != value}


def test_a_bare_guest() -> None:
    """The whole file of a guest with nothing: both bootrom spellings, ACPI, the base flags of contract 1.2."""
    assert render(guest(BARE), provisional(guest(BARE)), AMD) == (
        "name=a\ncpus=1\nsockets=1\ncores=1\nthreads=1\nmemory.size=256M\nacpi_tables=true\nx86.vmexit_on_hlt=true\n"
        "x86.vmexit_on_pause=true\nx86.strictmsr=false\nrtc.use_localtime=false\n"
        "bootrom=/usr/local/share/uefi-firmware/BHYVE_UEFI.fd\nlpc.bootrom=/usr/local/share/uefi-firmware/BHYVE_UEFI.fd\n"
        "bootvars=/var/db/bhyved/vars/a.fd\nlpc.bootvars=/var/db/bhyved/vars/a.fd\n"
        "pci.0.0.0.device=hostbridge\npci.0.31.0.device=lpc\n"
    )


def test_a_bare_guest_on_arm64() -> None:
    """No x86 variable, no LPC, one bootrom spelling, the console as a variable of its own (contract 2.5)."""
    spec = guest('[boot]\nloader = "u-boot"\n[random]\nenabled = false\n')
    assert render(spec, provisional(spec, arch="arm64"), ARM) == (
        "name=a\ncpus=1\nsockets=1\ncores=1\nthreads=1\nmemory.size=256M\n"
        "bootrom=/usr/local/share/u-boot/u-boot-bhyve-arm64/u-boot.bin\nconsole=/dev/nmdm-a.1A\npci.0.0.0.device=hostbridge\n"
    )


D = "pci.0.4.0."
N = "pci.0.10.0."
FEATURES = [
    ("cpus = 4", {"cpus": "4", "sockets": "4"}),
    ("cpus = { sockets = 2, cores = 2, threads = 2 }", {"cpus": "8", "sockets": "2", "cores": "2", "threads": "2"}),
    (
        'cpus = { cores = 2, pin = ["0:2", "1:4-6", "0:3"] }',
        {"cpus": "2", "cores": "2", "vcpu.0.cpuset": "2,3", "vcpu.1.cpuset": "4-6"},
    ),
    (
        'memory = "2G"\ncpus = { cores = 2, numa = [{ size = "1G", cpus = "0" }, { size = "1G", cpus = "1" }] }',
        {
            "cpus": "2",
            "cores": "2",
            "memory.size": "2G",
            "domains.0.size": "1G",
            "domains.0.cpus": "0",
            "domains.1.size": "1G",
            "domains.1.cpus": "1",
        },
    ),
    ('memory = "1536M"\nwired = true', {"memory.size": "1536M", "memory.wired": "true"}),
    ('clock = "localtime"', {"rtc.use_localtime": "true"}),
    ('uuid = "6BC34F7C-1B1E-11EF-8C8A-0242AC120002"', {"uuid": "6bc34f7c-1b1e-11ef-8c8a-0242ac120002"}),
    (
        '[boot]\nfirmware = "/fw/X.fd"\nvars = "/fw/V.fd"\nfwcfg = "qemu"',
        {"bootrom": "/fw/X.fd", "lpc.bootrom": "/fw/X.fd", "bootvars": "/fw/V.fd", "lpc.bootvars": "/fw/V.fd", "lpc.fwcfg": "qemu"},
    ),
    (
        '[[disk]]\npath = "/d,1"\nsector-size = "512/4096"\nnocache = true\nsync = true\nread-only = true\ndiscard = false\n'
        'boot-index = 1\nserial = "S1"',
        {
            D + "device": "virtio-blk",
            D + "path": "/d,1",
            D + "nocache": "true",
            D + "direct": "true",
            D + "ro": "true",
            D + "nodelete": "true",
            D + "sectorsize": "512/4096",
            D + "bootindex": "1",
            D + "ser": "S1",
        },
    ),
    (
        '[[disk]]\npath = "/d"\nmodel = "ahci-hd"\nserial = "S"\nrevision = "R"\nproduct = "P"\nrotation-rate = 1\nread-only = true',
        {
            D + "device": "ahci",
            D + "port.0.type": "hd",
            D + "port.0.path": "/d",
            D + "port.0.ro": "true",
            D + "port.0.ser": "S",
            D + "port.0.rev": "R",
            D + "port.0.model": "P",
            D + "port.0.nmrr": "1",
        },
    ),
    (
        '[[disk]]\npath = "/d"\nmodel = "nvme"\nmax-queues = 8\nqueue-size = 64\nio-slots = 4\neui64 = "7"\ndsm = "disable"\nserial = "S"',
        {
            D + "device": "nvme",
            D + "path": "/d",
            D + "maxq": "8",
            D + "qsz": "64",
            D + "ioslots": "4",
            D + "eui64": "7",
            D + "dsm": "disable",
            D + "ser": "S",
        },
    ),
    (
        '[[disk]]\nmodel = "nvme"\nram = "64M"\nsector-size = "4096"',
        {D + "device": "nvme", D + "ram": "64", D + "sectsz": "4096"},
    ),
    (
        '[[disk]]\npath = "/dev/cam/ctl1.2"\nmodel = "virtio-scsi"\ninitiator-id = 3',
        {D + "device": "virtio-scsi", D + "dev": "/dev/cam/ctl1.2", D + "iid": "3"},
    ),
    (
        '[[cdrom]]\npath = "/i"\nboot-index = 2',
        {"pci.0.2.0.device": "ahci", "pci.0.2.0.port.0.type": "cd", "pci.0.2.0.port.0.path": "/i", "pci.0.2.0.port.0.bootindex": "2"},
    ),
    (
        '[[disk]]\npath = "/d"\nmodel = "ahci-hd"\ncontroller = "s"\n[[cdrom]]\npath = "/i"\ncontroller = "s"',
        {
            D + "device": "ahci",
            D + "port.0.type": "hd",
            D + "port.0.path": "/d",
            D + "port.1.type": "cd",
            D + "port.1.path": "/i",
        },
    ),
    (
        '[[network]]\nbridge = "bridge0"\nmac = "58:9c:fc:00:00:01"\nmtu = 9000',
        {N + "device": "virtio-net", N + "backend": "tap0", N + "mac": "58:9c:fc:00:00:01", N + "mtu": "9000"},
    ),
    (
        '[[network]]\nvmnet = "vmnet2"\nmodel = "e1000"\nmac = "58:9c:fc:00:00:01"',
        {N + "device": "e1000", N + "backend": "vmnet2", N + "mac": "58:9c:fc:00:00:01"},
    ),
    (
        '[[network]]\nnetmap = "vale0:1"\nmac = "58:9c:fc:00:00:01"',
        {N + "device": "virtio-net", N + "backend": "vale0:1", N + "mac": "58:9c:fc:00:00:01"},
    ),
    (
        '[[network]]\nmac = "58:9c:fc:00:00:01"\nnetgraph = { path = "vmbridge:", peer-hook = "link2", socket = "s", hook = "h" }',
        {
            N + "device": "virtio-net",
            N + "backend": "netgraph",
            N + "path": "vmbridge:",
            N + "peerhook": "link2",
            N + "socket": "s",
            N + "hook": "h",
            N + "mac": "58:9c:fc:00:00:01",
        },
    ),
    (
        '[[network]]\nmac = "58:9c:fc:00:00:01"\nslirp = { open = true, forward = ["tcp:127.0.0.1:2222-:22", "tcp::80-:80"] }',
        {
            N + "device": "virtio-net",
            N + "backend": "slirp",
            N + "open": "true",
            N + "hostfwd": "tcp:127.0.0.1:2222-:22;tcp::80-:80",
            N + "mac": "58:9c:fc:00:00:01",
        },
    ),
    ('[[network]]\nmac = "58:9c:fc:00:00:01"', {N + "device": "virtio-net", N + "mac": "58:9c:fc:00:00:01"}),
    (
        '[[serial]]\n[[serial]]\nport = "com2"\nmode = "tcp"\naddress = "127.0.0.1:4001"\n[[serial]]\nport = "com4"\n'
        'mode = "device"\ndevice = "/dev/ttyu1"',
        {"lpc.com1.path": "/dev/nmdm-a.1A", "lpc.com2.path": "tcp=127.0.0.1:4001", "lpc.com4.path": "/dev/ttyu1"},
    ),
    (
        '[graphics]\nlisten = "0.0.0.0:5901"\nresolution = "800x600"\nvga = "off"\nkeyboard = "de"\ntablet = false',
        {
            "keyboard.layout": "de",
            "pci.0.29.0.device": "fbuf",
            "pci.0.29.0.tcp": "0.0.0.0:5901",
            "pci.0.29.0.w": "800",
            "pci.0.29.0.h": "600",
            "pci.0.29.0.vga": "off",
        },
    ),
    (
        '[graphics]\nlisten = "unix:/run/v.sock"',
        {
            "pci.0.29.0.device": "fbuf",
            "pci.0.29.0.rfb": "unix:/run/v.sock",
            "pci.0.29.0.w": "1024",
            "pci.0.29.0.h": "768",
            "pci.0.30.0.device": "xhci",
            "pci.0.30.0.slot.1.device": "tablet",
        },
    ),
    ("[tpm]", {"tpm.type": "swtpm", "tpm.path": "/var/run/bhyved/vm/a/tpm.sock", "tpm.version": "2.0"}),
    ('[tpm]\ntype = "passthru"', {"tpm.type": "passthru", "tpm.path": "/dev/tpm0", "tpm.version": "2.0"}),
    (
        'wired = true\n[[passthru]]\ndevice = "2/0/1"\nrom = "/r"\n[[passthru]]\ndevice = "ppt1"\nboot-index = 1',
        {
            "memory.wired": "true",
            "pci.0.20.0.device": "passthru",
            "pci.0.20.0.bus": "2",
            "pci.0.20.0.slot": "0",
            "pci.0.20.0.func": "1",
            "pci.0.20.0.rom": "/r",
            "pci.0.21.0.device": "passthru",
            "pci.0.21.0.pptdev": "ppt1",
            "pci.0.21.0.bootindex": "1",
        },
    ),
    (
        '[[share]]\nname = "s"\npath = "/p=q"\nread-only = true',
        {"pci.0.17.0.device": "virtio-9p", "pci.0.17.0.sharename": "s", "pci.0.17.0.path": "/p=q", "pci.0.17.0.ro": "true"},
    ),
    (
        '[[virtio-console]]\nname = "org.qemu.guest_agent.0"\n[[virtio-console]]\nname = "two"\npath = "/two.sock"',
        {
            "pci.0.18.0.device": "virtio-console",
            "pci.0.18.0.port.0.name": "org.qemu.guest_agent.0",
            "pci.0.18.0.port.0.path": "/var/run/bhyved/vm/a/vtcon0.sock",
            "pci.0.18.0.port.1.name": "two",
            "pci.0.18.0.port.1.path": "/two.sock",
        },
    ),
    ('[sound]\nrecord = "/dev/dsp1"', {"pci.0.19.0.device": "hda", "pci.0.19.0.play": "/dev/dsp0", "pci.0.19.0.rec": "/dev/dsp1"}),
    ('[[input]]\npath = "/dev/input/event0"', {"pci.0.28.0.device": "virtio-input", "pci.0.28.0.path": "/dev/input/event0"}),
    (
        '[random]\nenabled = true\nslot = "1:3"\n[[serial]]\nport = "com3"',
        {"pci.0.1.3.device": "virtio-rnd", "lpc.com3.path": "/dev/nmdm-a.3A"},
    ),
    (
        '[bhyve]\nhostbridge = "amd"\nlpc-slot = "1"\n'
        'options = { "x86.strictmsr" = true, "system.serial_number" = "007", "lab.script" = "a; b" }',
        {
            "x86.strictmsr": "true",
            "pci.0.0.0.pcireg.vendor": "0x1022",
            "pci.0.0.0.pcireg.device": "0x7432",
            "pci.0.1.0.device": "lpc",
            "system.serial_number": "007",
            "lab.script": "a; b",
        },
    ),
]


@pytest.mark.parametrize(("text", "variables"), FEATURES, ids=[text.replace("\n", " ")[:50] for text, _ in FEATURES])
def test_feature(text: str, variables: dict[str, str]) -> None:
    """A feature of the file adds exactly these variables (contract 1.4, 3.8)."""
    assert added(text) == variables


def test_buses_above_zero_switch_the_mp_table_off() -> None:
    """A device beyond bus 0 needs it (contract 3.1)."""
    assert added('[[disk]]\npath = "/d"\nslot = "1:2:0"')["x86.mptable"] == "false"


def test_a_loader_guest_has_no_bootrom() -> None:
    """With bhyveload or grub no bootrom variable may appear: bhyve would ignore what the loader did (contract 2.1)."""
    assert not any("boot" in name for name in rendered('[boot]\nloader = "bhyveload"'))


def test_csm_firmware_has_no_variables() -> None:
    """BIOS firmware keeps nothing in a variables file of ours."""
    tree_of = rendered('[boot]\nloader = "uefi-csm"')
    assert tree_of["bootrom"].endswith("BHYVE_UEFI_CSM.fd")
    assert "bootvars" not in tree_of


def test_install_media_come_and_go() -> None:
    """A medium for installing is attached only while installing, and leaves every other slot alone."""
    text = '[[cdrom]]\npath = "/iso"\nwhen = "install"\n[[disk]]\npath = "/d"'
    without, with_it = rendered(text), rendered(text, install=True)
    assert {key: value for key, value in with_it.items() if not key.startswith("pci.0.2.")} == without
    assert with_it["pci.0.2.0.port.0.path"] == "/iso"


def test_an_install_medium_leaves_its_port() -> None:
    """On a shared controller the disk keeps its port without the medium, and a controller without drives is not there."""
    shared = '[[cdrom]]\npath = "/iso"\nwhen = "install"\ncontroller = "s"\n'
    disk = '[[disk]]\npath = "/d"\nmodel = "ahci-hd"\ncontroller = "s"\n'
    assert "pci.0.4.0.port.0.path" in rendered(shared + disk)
    assert "pci.0.4.0.port.1.path" not in rendered(shared + disk)
    assert "pci.0.4.0.device" not in rendered(shared)


def test_vnc_waits_on_the_first_run_only() -> None:
    """A restart at night must not wait for somebody to connect."""
    text = "[graphics]\nwait = true"
    assert rendered(text)["pci.0.29.0.wait"] == "true"
    assert "pci.0.29.0.wait" not in rendered(text, first_run=False)


def test_what_the_host_gave_is_used() -> None:
    """Port, password, UUID and firmware that the host chose."""
    spec = rendered('[graphics]\npassword-file = "/pw"', vnc="127.0.0.1:5907", vnc_password="secret,1", uuid="u", firmware="/fw")
    assert spec["pci.0.29.0.tcp"] == "127.0.0.1:5907"
    assert spec["pci.0.29.0.password"] == "secret,1"
    assert spec["uuid"] == "u"
    assert spec["lpc.bootrom"] == "/fw"


@pytest.mark.parametrize("password", ["50%", "a\nlpc.com1.path=/dev/console", ""])
def test_a_password_that_cannot_be_written_is_refused(password: str) -> None:
    """The message names the variable and never the password; an empty one is none."""
    if not password:
        assert "pci.0.29.0.password" not in rendered("[graphics]", vnc_password=password)
        return
    with pytest.raises(ConfError, match=r"pci\.0\.29\.0\.password: must") as caught:
        rendered("[graphics]", vnc_password=password)
    assert password not in str(caught.value)


@pytest.mark.parametrize("options", ['"pci.0.31.0.device.x" = 1', '"pci.0.31.0" = 1', '"lpc.com1" = "x"'])
def test_a_name_is_a_value_or_a_group(options: str) -> None:
    """An option that is below a variable, or above one, is refused here: bhyve would exit 4 (contract 1.3)."""
    loaded = load(Source("", ""), {"a": Source("a.toml", f"[bhyve]\noptions = {{ {options} }}")}, {})
    assert "is a variable already" in str(loaded.problems[0])


def test_the_file_is_plain_lines() -> None:
    """One name=value a line, no blanks around the sign, the last line ended."""
    text = bhyveconf.written({"a": "b c", "d": "e=f"})
    assert text == "a=b c\nd=e=f\n"
