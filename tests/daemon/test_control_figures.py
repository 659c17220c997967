"""The guests in figures over the control socket, and the link to their page."""

import pytest

from bhyved.core.status import Phase
from tests.daemon.controlkit import ROOT, guest, served, user


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


async def test_usage_is_what_the_host_says(tmp_path):
    """Process and taps of a guest that runs; of one that does not, that there is nothing."""
    async with served(tmp_path, guest("web1"), guest("idle")) as daemon, daemon.client() as client:
        daemon.guests.show("web1", phase=Phase.UP, pid=4711, taps=("tap0", "tap9"))
        told = await client.call("vm.usage")

    idle, web1 = told["vms"]
    assert told["at-s"] == 100.0
    assert web1 == {
        "name": "web1",
        "cpu_s": 12.5,
        "resident_bytes": 1 << 30,
        "threads": 9,
        "received_bytes": 1000,
        "sent_bytes": 2000,
        "console_bytes": 0,
    }
    assert (idle["cpu_s"], idle["resident_bytes"], idle["threads"], idle["received_bytes"]) == (None, None, None, 0)


async def test_usage_of_some(tmp_path):
    """With names, of these; of others than one's own, not even that they are there."""
    async with served(tmp_path, guest("mine", owner=("alice",)), guest("other")) as daemon, daemon.client(user("alice")) as client:
        assert [each["name"] for each in (await client.call("vm.usage"))["vms"]] == ["mine"]
        assert [each["name"] for each in (await client.call("vm.usage", names=["mine"]))["vms"]] == ["mine"]
        assert (await client.fail("vm.usage", names=["other"]))["code"] == "no-such-guest"
        async with daemon.client(ROOT) as root:
            assert [each["name"] for each in (await root.call("vm.usage", names=["other"]))["vms"]] == ["other"]


async def test_metrics_are_those_of_http(tmp_path):
    """The same text in the same formats."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        text = await client.call("daemon.metrics")
        open_ = await client.call("daemon.metrics", accept="application/openmetrics-text; version=1.0.0")

    assert text["content-type"].startswith("text/plain")
    assert 'bhyved_vm_phase{vm="web1",phase="down"} 1' in text["text"]
    assert "bhyved_build_info" in text["text"]
    assert open_["content-type"].startswith("application/openmetrics-text")
    assert open_["text"].endswith("# EOF\n")


async def test_a_link_is_handed_out_by_name(tmp_path):
    """It opens the page of all guests: who got one is an event."""
    async with served(tmp_path, guest("web1")) as daemon, daemon.client() as client:
        url = (await client.call("web.link"))["url"]
        events = daemon.guests.events.since(0)
        daemon.guests.no_page = "the http server is switched off"
        fault = await client.fail("web.link")

    assert url == "http://127.0.0.1:9747/login?token=x"
    assert [(event.event, event.by, event.data["method"]) for event in events] == [("asked", "root", "web.link")]
    assert (fault["code"], fault["message"]) == ("no-page", "the http server is switched off")
