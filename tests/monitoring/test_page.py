"""The status page in a real browser: live, escaped, quiet on the network, in light and dark."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from bhyved.core.status import Phase
from bhyved.core.units import span
from bhyved.daemon import page as pages
from tests.daemon.webkit import NOW, Server, crowd, status, up
from tests.monitoring.chromium import CHROMIUM, Browser, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

SCRIPT = Path(pages.__file__).with_name("page.js")
HOSTILE = "<script>window.broken=1</script><img src=x onerror='window.broken=1'>"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server(*crowd())
    made.lines = [("com1", f"login: {HOSTILE}")]
    async with made.running() as running:
        yield running


@pytest.fixture
async def page(server: Server, tmp_path: Path) -> AsyncIterator[Browser]:
    """The page, opened by a link as an operator does."""
    with trio.fail_after(60), browser(tmp_path) as opened:
        await opened.open()
        await opened.visit(server.web.new_link())
        yield opened


def cell(name: str, place: int) -> str:
    return f"document.querySelector('tbody[data-vm={name}]').rows[0].cells[{place}].textContent"


async def test_follows_live(server: Server, page: Browser) -> None:
    """Guests that change, come and go are seen at once and in their place, without loading the page again."""
    await page.evaluate("window.stays = 1")
    assert await page.evaluate(cell("win11", 1)) == "heldwished up"
    server.board.publish(up("win11", reason="released by root"))
    await page.until(f"{cell('win11', 1)} === 'up'")
    server.board.publish(status("mail2"))
    server.board.remove("spare")
    await page.until("document.querySelector('tbody[data-vm=mail2]') && !document.querySelector('tbody[data-vm=spare]')")
    names = await page.evaluate("Array.from(document.querySelectorAll('tbody')).map((body) => body.dataset.vm)")
    assert names == ["db1", "loop1", "mail", "mail2", "web1", "win11"]
    assert "3 up" in await page.evaluate("document.getElementById('counts').textContent")
    assert await page.evaluate("window.stays") == 1


async def test_times_run_on_in_the_words_of_the_client(page: Browser) -> None:
    """Whole seconds, as `vmctl` says them."""
    function = re.search(r"const span = (\(seconds\) => \{.*?\n  \});\n", SCRIPT.read_text(), re.DOTALL)
    assert function is not None
    seconds = [0, 9, 59, 60, 61, 3599, 3600, 3661, 7265, 86_400, 90_061, 864_000]

    assert await page.evaluate(f"{seconds}.map({function[1]})") == [span(each) for each in seconds]


async def test_a_click_says_why(server: Server, page: Browser) -> None:
    """A click on a guest shows why, its runs and its console, which keep up with it; another click closes them."""
    row = "document.querySelector('tbody[data-vm=win11] tr.vm')"
    detail = "document.querySelector('tbody[data-vm=win11] .detail')"
    await page.evaluate(f"{row}.click()")
    await page.until(f"{detail} && {detail}.textContent.includes('win11 is held')")
    assert await page.evaluate(f"{detail}.querySelectorAll('tr.trouble').length") == 5
    assert "login: <script>" in await page.evaluate(f"{detail}.querySelector('pre').textContent")
    server.board.publish(status("win11", phase=Phase.BACKOFF, reason="trying again"))
    await page.until(f"{detail}.textContent.includes('win11 is backoff')")
    await page.evaluate(f"{row}.click()")
    await page.until(f"!{detail}")


async def test_nothing_from_guests_runs(server: Server, page: Browser) -> None:
    """Script in a reason or on a console is shown as text, on the first page, in live rows and in details."""
    server.board.publish(status("loop1", reason=HOSTILE))
    await page.until(f"{cell('loop1', 2)} === {json.dumps(HOSTILE)}")
    await page.evaluate("document.querySelector('tbody[data-vm=loop1] tr.vm').click()")
    await page.until("document.querySelector('.detail pre') !== null")
    assert await page.evaluate("window.broken") is None
    assert page.complaints() == []


async def test_nothing_is_asked_elsewhere(server: Server, page: Browser) -> None:
    """The page asks its own daemon for itself and its events, and nothing else of anybody."""
    await page.until("document.querySelectorAll('tbody').length === 6")
    asked = [url.removeprefix(server.url).partition("?")[0] for url in page.requests()]
    assert asked == ["/login", "/", "/events"]
    assert page.complaints() == []


async def test_times_run(server: Server, page: Browser) -> None:
    """How long a guest has been up counts on in the browser, by the daemon's clock."""
    server.now = NOW
    server.board.publish(up("web1", since_at=NOW, started_at=NOW))
    await page.until(f"/^[1-9]s$/.test({cell('web1', 3)})")


async def test_says_when_the_daemon_is_gone(tmp_path: Path) -> None:
    """What is shown is marked as old when nobody answers any more."""
    server = Server(*crowd())
    with trio.fail_after(60), browser(tmp_path) as opened:
        async with server.running():
            await opened.open()
            await opened.visit(server.web.new_link())
            await opened.until("document.querySelectorAll('tbody').length === 6")
        await opened.until("!document.getElementById('link').hidden")
        assert "may be old" in await opened.evaluate("document.getElementById('link').textContent")


@pytest.mark.parametrize("dark", [False, True])
async def test_light_and_dark(server: Server, tmp_path: Path, dark: bool) -> None:
    """The page follows the system's choice, and its text stands out from its ground in both."""
    with trio.fail_after(60), browser(tmp_path) as opened:
        await opened.open(dark=dark)
        await opened.visit(server.web.new_link())
        read = "getComputedStyle(document.querySelector('{}')).{}.match(/\\d+/g).slice(0, 3).map(Number)"
        ground = await opened.evaluate(read.format("body", "backgroundColor"))
        assert (sum(ground) < 128) == dark
        for part in ("body", "td.why", "a", ".note"):
            assert contrast(await opened.evaluate(read.format(part, "color")), ground) >= 4.5, part
        for part in (".chip.up", ".chip.held", ".chip.backoff", ".chip.down"):
            colours = [await opened.evaluate(read.format(part, which)) for which in ("color", "backgroundColor")]
            assert contrast(*colours) >= 4.5, part


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG's contrast ratio; 4.5 is what it asks of text."""

    def luminance(colour: list[int]) -> float:
        parts = [part / 255 for part in colour]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


async def test_a_narrow_screen_has_all_of_it(server: Server, tmp_path: Path) -> None:
    """On a telephone the table scrolls inside its frame, and the page itself does not."""
    with trio.fail_after(60), browser(tmp_path) as opened:
        await opened.open(width=390, height=800)
        await opened.visit(server.web.new_link())
        assert await opened.evaluate("document.documentElement.scrollWidth <= 390")
