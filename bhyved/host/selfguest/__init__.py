"""The guest of `bhyved selftest`: a boot ROM of one page, which bhyve boots without disk, loader or firmware package.

selfguest.s beside this file says what it prints and obeys; selfguest.bin is that source assembled, so that no host needs an assembler
(a test assembles it again and compares).
"""

from pathlib import Path

SOURCE = Path(__file__).with_name("selfguest.s")
ROM = Path(__file__).with_name("selfguest.bin")
