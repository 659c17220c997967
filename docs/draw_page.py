"""Takes the pictures of the status page in docs/guide/monitoring.md: `python docs/draw_page.py`. Needs Chromium.

The guests are those of the page's own tests: one in every state that there is.
"""

import sys
import tempfile
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.daemon.webkit import Server, crowd
from tests.monitoring.chromium import CHROMIUM, browser

PICTURES = Path(__file__).parent / "guide/pictures"
HEIGHT = 760
LOOPS = "tbody[data-vm=loop1]"


async def take(name: str, *, dark: bool) -> None:
    """The page, with the details of the guest that keeps crashing."""
    server = Server(*crowd())
    with tempfile.TemporaryDirectory() as directory, browser(Path(directory)) as opened:
        async with server.running():
            await opened.open(dark=dark, height=HEIGHT)
            await opened.visit(server.web.new_link())
            await opened.until(f"document.querySelector('{LOOPS}') !== null")
            await opened.evaluate(f"document.querySelector('{LOOPS} tr.vm').click()")
            await opened.until(f"document.querySelector('{LOOPS} .detail pre') !== null")
            (PICTURES / name).write_bytes(await opened.screenshot())


def main() -> int:
    if CHROMIUM is None:
        print("the page's pictures are not taken: chromium is not installed", file=sys.stderr)
        return 0
    trio.run(lambda: take("page-light.png", dark=False))
    trio.run(lambda: take("page-dark.png", dark=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
