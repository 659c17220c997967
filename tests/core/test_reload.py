"""What a reload changes, and when."""

import pytest

from bhyved.core.config import Source, load
from bhyved.core.reload import Change, Effect, compare, compare_daemon, plan, worst
from bhyved.core.spec import DaemonSpec, VmSpec


def guest(text: str) -> VmSpec:
    loaded = load(Source("", ""), {"a": Source("a.toml", text)}, {})
    assert loaded.problems == ()
    return loaded.vms["a"]


def daemon(text: str) -> DaemonSpec:
    loaded = load(Source("", text), {}, {})
    assert loaded.daemon is not None
    return loaded.daemon


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("", "", ()),
        ("cpus = 1", "cpus = 2", (Change("cpus.sockets", 1, 2, Effect.NEXT_GUEST_REBOOT),)),
        ('memory = "1G"', 'memory = "2G"', (Change("memory", "1G", "2G", Effect.NEXT_GUEST_REBOOT),)),
        ("", "autostart = false", (Change("autostart", True, False, Effect.LIVE),)),
        ("", 'owner = ["a"]', (Change("owner", (), ("a",), Effect.LIVE),)),
        ("", '[restart]\nbackoff = "5s"', (Change("restart.backoff", "2s", "5s", Effect.LIVE),)),
        ("", '[stop]\ntimeout = "5m"', (Change("stop.timeout", "1m", "5m", Effect.LIVE),)),
        ("", "[stop]\nignore-early-term = false", (Change("stop.ignore-early-term", True, False, Effect.NEXT_GUEST_REBOOT),)),
        ("", '[[serial]]\non-detach = "hangup-line"', (Change("serial[0].on-detach", "nothing", "hangup-line", Effect.LIVE),)),
        ("", '[[serial]]\nmode = "external"', (Change("serial[0].mode", "managed", "external", Effect.NEXT_GUEST_REBOOT),)),
        ("[graphics]", "[graphics]\nwait = true", (Change("graphics.wait", False, True, Effect.NEXT_COLD_START),)),
        (
            '[[disk]]\npath = "/a"',
            '[[disk]]\npath = "/b"\nread-only = true',
            (
                Change("disk[0].path", "/a", "/b", Effect.NEXT_GUEST_REBOOT),
                Change("disk[0].read-only", False, True, Effect.NEXT_GUEST_REBOOT),
            ),
        ),
        (
            '[cloud-init]\nuser = "a"',
            '[cloud-init]\nuser = "b"\nwhen = "first"',
            (
                Change("cloud-init.when", "always", "first", Effect.NEXT_GUEST_REBOOT),
                Change("cloud-init.user", "a", "b", Effect.NEXT_GUEST_REBOOT),
            ),
        ),
        ("", "[bhyve]\noptions = { x = 1 }", (Change("bhyve.options", {}, {"x": "1"}, Effect.NEXT_GUEST_REBOOT),)),
    ],
)
def test_each_key_has_its_time(old: str, new: str, changes: tuple[Change, ...]) -> None:
    """A change names its key, both values as written, and when it takes effect."""
    assert compare(guest(old), guest(new)) == changes


def test_a_device_more_or_less() -> None:
    """A table added or removed at the end is one change of that table."""
    one, two = guest('[[disk]]\npath = "/a"'), guest('[[disk]]\npath = "/a"\n[[disk]]\npath = "/b"')
    (added,) = compare(one, two)
    assert (added.key, added.old, added.effect) == ("disk[1]", None, Effect.NEXT_GUEST_REBOOT)
    assert added.new["path"] == "/b"
    (removed,) = compare(two, one)
    assert (removed.key, removed.new) == ("disk[1]", None)


def test_the_daemons_keys() -> None:
    """Most of bhyved.toml is live; what the daemon holds open is refused and needs a restart of the daemon."""
    changes = compare_daemon(daemon(""), daemon('start-parallel = 5\n[paths]\nrun = "/r"\n[metrics]\nlisten = ""\n[log]\nlevel = "debug"'))
    assert {change.key: change.effect for change in changes} == {
        "start-parallel": Effect.LIVE,
        "paths.run": Effect.REFUSED,
        "metrics.listen": Effect.LIVE,
        "log.level": Effect.LIVE,
    }


def test_the_whole_plan() -> None:
    """Guests that come, go and change; those that stay the same are not mentioned."""
    old = {"same": guest(""), "gone": guest(""), "edited": guest("")}
    new = {"same": guest(""), "new": guest(""), "edited": guest('cpus = 2\n[restart]\nbackoff = "5s"')}
    found = plan(old, new, (daemon(""), daemon("start-parallel = 3")))
    assert (found.added, found.removed, set(found.changed)) == (("new",), ("gone",), {"edited"})
    assert worst(found.changed["edited"]) is Effect.NEXT_GUEST_REBOOT
    assert [change.key for change in found.daemon] == ["start-parallel"]


def test_the_worst_of_some_changes_is_the_latest() -> None:
    """The order is that of the effects, whatever their names are."""
    changes = {effect: Change("key", None, None, effect) for effect in Effect}
    assert worst(()) is Effect.LIVE
    assert worst((changes[Effect.LIVE], changes[Effect.NEXT_COLD_START], changes[Effect.NEXT_GUEST_REBOOT])) is Effect.NEXT_COLD_START
    assert worst((changes[Effect.NEXT_GUEST_REBOOT], changes[Effect.LIVE])) is Effect.NEXT_GUEST_REBOOT
    assert worst(tuple(changes.values())) is Effect.REFUSED
