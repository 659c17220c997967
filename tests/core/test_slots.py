"""PCI slots and MAC addresses: by kind, stable, explicit ones honoured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import macs, slots
from bhyved.core.config import Source, load
from bhyved.core.spec import VmSpec


def guest(text: str) -> VmSpec:
    loaded = load(Source("", ""), {"a": Source("a.toml", text)}, {})
    assert loaded.problems == ()
    return loaded.vms["a"]


def disks(*paths: str) -> str:
    return "".join(f'[[disk]]\npath = "{path}"\n' for path in paths)


CARDS = '[[network]]\nbridge = "bridge0"\n[[network]]\nbridge = "bridge1"\n'


def test_every_kind_has_its_place() -> None:
    """The map of contract 3.1: host bridge 0, media from 2, disks from 4, cards from 10, then the rest up to lpc in 31."""
    text = (
        disks("/a", "/b")
        + '[[cdrom]]\npath = "/iso"\n'
        + CARDS
        + '[graphics]\n[[share]]\nname = "s"\npath = "/s"\n[[virtio-console]]\nname = "agent"\n[sound]\n'
    )
    assert slots.assign(guest(text), {}) == {
        "hostbridge": "0:0:0",
        "lpc": "0:31:0",
        "disk:/a": "0:4:0",
        "disk:/b": "0:5:0",
        "cdrom:/iso": "0:2:0",
        "network:0": "0:10:0",
        "network:1": "0:11:0",
        "random": "0:16:0",
        "share:s": "0:17:0",
        "virtio-console": "0:18:0",
        "sound": "0:19:0",
        "graphics": "0:29:0",
        "tablet": "0:30:0",
    }


#: A device of each kind that can be given a slot: the table, the key of its slot, where problems place it, and its identity.
GIVEN = [
    ('[[disk]]\npath = "/d"\n', "slot", "disk[1]", "disk:/d"),
    ('[[cdrom]]\npath = "/iso"\n', "slot", "cdrom[0]", "cdrom:/iso"),
    ('[[network]]\nbridge = "bridge0"\n', "slot", "network[0]", "network:0"),
    ("[random]\n", "slot", "random", "random"),
    ('[[share]]\nname = "s"\npath = "/s"\n', "slot", "share[0]", "share:s"),
    ("[sound]\n", "slot", "sound", "sound"),
    ('[[input]]\npath = "/dev/input/event0"\n', "slot", "input[0]", "input:/dev/input/event0"),
    ('[[passthru]]\ndevice = "2/0/0"\n', "slot", "passthru[0]", "passthru:2/0/0"),
    ("[graphics]\n", "slot", "graphics", "graphics"),
    ("[graphics]\n", "tablet-slot", "graphics.tablet-slot", "tablet"),
    ("[cloud-init]\n", "slot", "cloud-init", "cloud-init"),
    ("[bhyve]\n", "lpc-slot", "bhyve.lpc-slot", "lpc"),
]


@pytest.mark.parametrize(("table", "slot", "key", "identity"), GIVEN)
def test_a_given_slot_is_used(table: str, slot: str, key: str, identity: str) -> None:
    """Whatever kind of device it is given for, and whatever it had before."""
    spec = guest(f'wired = true\n{disks("/a")}{table}{slot} = "0:9:0"\n')
    assert slots.assign(spec, {identity: "0:8:0"})[identity] == "0:9:0"


@pytest.mark.parametrize(("table", "slot", "key", "identity"), GIVEN[:-1])
@pytest.mark.parametrize(
    ("taken", "owner"), [("0:3:0", "disk[0]"), ("0:0:0", "the host bridge"), ("0:7:0", 'bhyve.options."pci.0.7.0.device"')]
)
def test_a_slot_that_is_taken_is_refused(table: str, slot: str, key: str, identity: str, taken: str, owner: str) -> None:
    """Both owners are named, by where they stand in the file."""
    options = 'options = { "pci.0.7.0.device" = "uart" }\n'
    rest = f"{table}{options}" if table == "[bhyve]\n" else f"[bhyve]\n{options}{table}"
    loaded = load(
        Source("", ""), {"a": Source("a.toml", f'wired = true\n[[disk]]\npath = "/a"\nslot = "3"\n{rest}{slot} = "{taken}"\n')}, {}
    )
    said = [f"{problem.key}: {problem.sentence}" for problem in loaded.problems]
    assert said == [f"{key}: slot {taken} belongs to {owner} already"]


def test_a_slot_that_the_lpc_bridge_was_given() -> None:
    """It is chosen before every disk."""
    loaded = load(Source("", ""), {"a": Source("a.toml", '[[disk]]\npath = "/a"\nslot = "3"\n[bhyve]\nlpc-slot = "3"\n')}, {})
    (problem,) = loaded.problems
    assert (problem.key, problem.sentence) == ("disk[0]", "slot 0:3:0 belongs to bhyve.lpc-slot already")


def test_the_rest_of_the_map() -> None:
    """What is passed through behind what is not, the seed behind that, and a keyboard where nothing else begins."""
    passed = "".join(f'[[passthru]]\ndevice = "2/0/{function}"\n' for function in range(2))
    places = slots.assign(guest(f'wired = true\n{passed}[cloud-init]\n[[input]]\npath = "/dev/input/event0"\n'), {})
    assert [places[name] for name in ("passthru:2/0/0", "passthru:2/0/1", "cloud-init", "input:/dev/input/event0")] == [
        "0:20:0",
        "0:21:0",
        "0:27:0",
        "0:28:0",
    ]


def test_removing_a_disk_renumbers_nothing() -> None:
    """What is left keeps its slot, and a new disk takes the gap."""
    first = slots.assign(guest(disks("/a", "/b", "/c") + CARDS), {})
    second = slots.assign(guest(disks("/b", "/c") + CARDS), first)
    assert {key: first[key] for key in second} == second
    third = slots.assign(guest(disks("/new", "/b", "/c") + CARDS), second)
    assert third["disk:/new"] == first["disk:/a"]
    assert {key: third[key] for key in second} == second


def test_an_explicit_slot_wins_over_a_remembered_one() -> None:
    """The device that had the slot moves; nobody else does."""
    first = slots.assign(guest(disks("/a", "/b") + CARDS), {})
    assert first["disk:/b"] == "0:5:0"
    second = slots.assign(guest(disks("/a", "/b") + '[[network]]\nslot = "5"\nbridge = "bridge0"\n'), first)
    assert second["network:0"] == "0:5:0"
    assert second["disk:/a"] == first["disk:/a"]
    assert second["disk:/b"] not in ("0:5:0", "0:4:0")


def test_slots_of_options_are_kept_free() -> None:
    """A device that the operator writes by hand is not built over."""
    spec = guest(disks("/a") + '[bhyve]\noptions = { "pci.0.4.0.device" = "uart" }\n')
    assert slots.assign(spec, {})["disk:/a"] == "0:5:0"


def test_drives_share_a_controller() -> None:
    """Drives of one controller have its slot and ports of their own, which stay when one is removed."""
    text = '[[disk]]\npath = "/{}"\nmodel = "ahci-hd"\ncontroller = "sata"\n'
    cdrom = '[[cdrom]]\npath = "/iso"\ncontroller = "sata"\n'
    first = slots.assign(guest(text.format("a") + text.format("b") + cdrom), {})
    assert first["controller:sata"] == "0:4:0"
    assert [first[key] for key in ("disk:/a", "disk:/b", "cdrom:/iso")] == ["0:4:0/0", "0:4:0/1", "0:4:0/2"]
    second = slots.assign(guest(text.format("b") + cdrom), first)
    assert [second[key] for key in ("disk:/b", "cdrom:/iso")] == ["0:4:0/1", "0:4:0/2"]


def test_arm64_has_no_lpc() -> None:
    """There is no LPC bridge on arm64 (contract 2.5)."""
    assert "lpc" not in slots.assign(guest(""), {}, "arm64")


def test_an_amd64_lpc_may_be_moved() -> None:
    """Old guests have it in slot 1, as the Handbook."""
    assert slots.assign(guest('[bhyve]\nlpc-slot = "1"\n'), {"lpc": "0:31:0"})["lpc"] == "0:1:0"


def test_more_devices_than_a_bus() -> None:
    """The devices that bus 0 has no room for go to bus 1."""
    places = slots.assign(guest(disks(*(f"/{n}" for n in range(40)))), {})
    assert len(set(places.values())) == len(places) == 43
    assert any(place.startswith("1:") for place in places.values())


def test_what_was_on_another_bus_stays_there() -> None:
    """Though there is room on the first one by now."""
    places = slots.assign(guest(disks("/a", "/b")), {"disk:/b": "1:3:0", "lpc": "1:4:0"})
    assert (places["disk:/a"], places["disk:/b"], places["lpc"]) == ("0:4:0", "1:3:0", "0:31:0")


@pytest.mark.parametrize("remembered", [("0:4:0/1", "0:4:0/1"), ("0:4:0/1", "0:4:0/99"), ("0:4:0/1", "0:5:0/3"), ("0:4:0/1", "0:4:0")])
def test_a_damaged_port_is_forgotten(remembered: tuple[str, str]) -> None:
    """One that another drive has, that no controller has, or that is another controller's: the first free one is taken."""
    text = '[[disk]]\npath = "/{}"\nmodel = "ahci-hd"\ncontroller = "sata"\n'
    before = dict(zip(("disk:/a", "disk:/b"), remembered, strict=True))
    places = slots.assign(guest(text.format("a") + text.format("b")), before)
    assert (places["disk:/a"], places["disk:/b"]) == ("0:4:0/1", "0:4:0/0")


def test_damaged_memory_is_forgotten() -> None:
    """A state file with nonsense costs stability, not the guest."""
    spec = guest(disks("/a"))
    nonsense = {"disk:/a": "9:99:9", "random": "x", "lpc": "1:0:0", "hostbridge": "0:7:0", "gone": "0:4:0"}
    assert slots.assign(spec, nonsense) == slots.assign(spec, {})


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8), max_size=6))
def test_any_history_of_edits(history: list[list[str]]) -> None:
    """Whatever is added and removed: no two devices in one slot, and nobody who stays moves."""
    places: dict[str, str] = {}
    for names in history:
        before = places
        places = slots.assign(guest(disks(*(f"/{name}" for name in names)) + CARDS), before)
        assert len(set(places.values())) == len(places)
        assert all(places[key] == before[key] for key in places.keys() & before.keys())


def test_macs_are_stable_and_of_this_host() -> None:
    """One host and one guest give one address, another host another; the prefix is FreeBSD's."""
    spec = guest(CARDS)
    here = macs.assign(spec, {}, host_id="host1")
    assert here == macs.assign(spec, {}, host_id="host1")
    assert here != macs.assign(spec, {}, host_id="host2")
    assert len(set(here.values())) == 2
    assert all(mac.startswith("58:9c:fc:") for mac in here.values())


def test_a_given_mac_is_used_and_never_made_twice() -> None:
    """A made address avoids those given in this guest and those of others."""
    spec = guest(CARDS)
    first = macs.assign(spec, {}, host_id="h")
    other = macs.assign(spec, {}, host_id="h", taken=set(first.values()))
    assert not set(first.values()) & set(other.values())
    given_mac = guest(f'[[network]]\nbridge = "bridge0"\n[[network]]\nmac = "{first["network:0"]}"\n')
    both = macs.assign(given_mac, {}, host_id="h")
    assert both[f"network:{first['network:0']}"] == first["network:0"]
    assert both["network:0"] != first["network:0"]


def test_a_remembered_mac_stays() -> None:
    """An address once chosen survives a change of the host's id; nonsense from a state file does not."""
    spec = guest(CARDS)
    kept = macs.assign(spec, {"network:0": "58:9c:fc:aa:bb:cc", "network:1": "ff:ff:ff:ff:ff:ff"}, host_id="h")
    assert kept["network:0"] == "58:9c:fc:aa:bb:cc"
    assert kept["network:1"] == macs.assign(spec, {}, host_id="h")["network:1"]
