"""Rights on the live socket: every method as every kind of user, and what a user can learn about guests that are not its own."""

import json
from typing import Any

import pytest

from bhyved.core import rights
from bhyved.core.methods import METHODS
from bhyved.core.rights import Peer, Right, Role
from bhyved.core.status import Phase
from tests.daemon.controlkit import ROOT, Client, guest, served, user

OPERATOR = user("olga", 1002, "ops")
READER = user("carol", 1003, "monitors")
OWNER = user("alice", 1001)
STRANGER = user("eve", 1006)

#: What each method needs besides the guest it is about.
EXTRA: dict[str, dict[str, Any]] = {
    "vm.wait": {"until": "down"},
    "daemon.drain": {"on": False},
    "console.wait-for": {"text": "x", "timeout": 0.01},
    "console.send": {"text": "x"},
    "events.subscribe": {"follow": False},
    "vm.snapshot-delete": {"snapshot": "x"},
    "vm.rollback": {"snapshot": "x"},
}
#: Understood and permitted, and then refused for another reason: no guest here has a console, or a disk.
PERMITTED = {"", "no-console", "no-disks"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def params_for(method: str, name: str) -> dict[str, Any]:
    known = METHODS[method]
    keys = known.params.__struct_encode_fields__
    about = {"name": name} if "name" in keys else {"names": [name]} if "names" in keys else {}
    return about | EXTRA.get(method, {})


async def code_of(client: Client, method: str, name: str) -> str:
    """What came of it: '' for a result, else the error's word, or that of the guest's own answer."""
    answer = await answer_of(client, method, name)
    if "error" in answer:
        return str(answer["error"]["data"]["code"])
    told = answer["result"].get("answers", [{"ok": True, "code": ""}])[0]
    return "" if told["code"] not in ("no-such-guest", "not-permitted") else str(told["code"])


async def answer_of(client: Client, method: str, name: str) -> dict[str, Any]:
    await client.ask(method, "this", **params_for(method, name))
    while (line := await client.line()).get("id") != "this":
        assert line is not None
    return line


@pytest.mark.parametrize(
    ("peer", "role", "owns"),
    [
        (ROOT, Role.ROOT, False),
        (OPERATOR, Role.OPERATOR, False),
        (READER, Role.READER, False),
        (OWNER, Role.NONE, True),
        (STRANGER, Role.NONE, False),
    ],
)
@pytest.mark.parametrize("method", sorted(METHODS))
async def test_each_method_asks_for_its_right(tmp_path, method, peer, role, owns):
    """Who has the right gets through, on its own guest or on all; who has not is told so, and nothing is done."""
    known = METHODS[method]
    held = rights.over_guest(role, owned=owns) if known.of != "host" else rights.over_all(role)
    async with served(tmp_path, guest("mine", owner=("alice",)), guest("other")) as daemon:
        daemon.guests.trust(group="ops", read_group="monitors")
        async with daemon.client(peer) as client:
            code = await code_of(client, method, "mine")

    if known.right is None or known.right in held:
        assert code in PERMITTED
    else:
        assert code == "not-permitted"
        assert daemon.guests.wishes == daemon.guests.reloads == []
        assert daemon.guests.drain is None


@pytest.mark.parametrize("peer", [OWNER, STRANGER])
@pytest.mark.parametrize("method", sorted(name for name, known in METHODS.items() if known.of in ("guest", "guests")))
async def test_a_guest_of_others_looks_like_none(tmp_path, method, peer):
    """Word for word the same answer, but for the name: whether a guest exists is nobody else's business."""
    async with served(tmp_path, guest("mine", owner=("alice",)), guest("theirs")) as daemon:
        daemon.guests.show("theirs", phase=Phase.UP, run="r1")
        async with daemon.client(peer) as client:
            there = json.dumps(await answer_of(client, method, "theirs"))
            nowhere = json.dumps(await answer_of(client, method, "nobody"))

    assert there.replace("theirs", "nobody") == nowhere
    assert daemon.guests.wishes == []


async def test_lists_have_what_may_be_seen(tmp_path):
    """An owner's list has its guests, a reader's has all; asking for another's by name is asking for none."""
    async with served(tmp_path, guest("mine", owner=("alice",)), guest("theirs")) as daemon:
        daemon.guests.trust(read_group="monitors")
        async with daemon.client(OWNER) as client:
            own = await client.call("vm.list")
            refused = await client.fail("vm.list", names=["mine", "theirs"])
        async with daemon.client(READER) as client:
            every = await client.call("vm.list")

    assert [row["name"] for row in own["vms"]] == ["mine"]
    assert refused["code"] == "no-such-guest"
    assert [row["name"] for row in every["vms"]] == ["mine", "theirs"]


async def test_a_reader_who_owns_a_guest_operates_that_one(tmp_path):
    """It sees all, so the others' answers say that they are not its to operate; `all` leaves them alone."""
    both = user("alice", 1001, "monitors")
    async with served(tmp_path, guest("mine", owner=("alice",)), guest("theirs")) as daemon:
        daemon.guests.trust(read_group="monitors")
        async with daemon.client(both) as client:
            named = (await client.call("vm.start", names=["mine", "theirs", "nobody"]))["answers"]
            every = (await client.call("vm.stop", all=True))["answers"]

    assert [each["code"] for each in named] == ["accepted", "not-permitted", "no-such-guest"]
    assert named[1]["text"] == "alice may not do this to theirs: that needs root, [control] group or the guest's owner"
    assert [each["name"] for each in every] == ["mine"]
    assert [name for name, _ in daemon.guests.wishes] == ["mine", "mine"]


async def test_a_reload_counts_at_once(tmp_path):
    """An open connection gains and loses rights with the configuration."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client(OPERATOR) as client:
        refused = await client.fail("config.check")
        assert (await client.fail("vm.list"))["code"] == "not-permitted"
        daemon.guests.trust(group="ops")
        assert (await client.call("vm.list"))["vms"]
        daemon.guests.trust()
        assert (await client.fail("vm.start", names=["web1"]))["code"] == "not-permitted"

    assert refused["message"] == "olga may not do this: that needs root, [control] group or read-group"


async def test_a_user_without_a_name_is_nobody(tmp_path):
    """A uid that the user database does not have may ask who it is, and nothing else."""
    async with served(tmp_path, guest("web1", owner=("alice",))) as daemon:
        daemon.guests.trust(group="ops")
        async with daemon.client(Peer(uid=70_000, gid=70_000)) as client:
            assert (await client.call("daemon.info"))["you"] == {"uid": 70_000, "user": "", "role": "none", "owns": []}
            error = await client.fail("vm.start", names=["web1"])

    assert error["message"] == "uid 70000 may not do this: that needs root, [control] group or the guest's owner"


def test_only_one_right_is_of_the_host_alone():
    """Everything but ADMIN can come with a guest."""
    assert set(Right) - rights.over_guest(Role.NONE, owned=True) == {Right.ADMIN}
