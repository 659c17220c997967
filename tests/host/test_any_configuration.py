"""Any bytes in the place of any configuration file: problems in words, or a guest; never an exception, and never another file's trouble."""

from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.spec import dump
from bhyved.host import configfiles
from tests.core.strategies import guests
from tests.fuzz import examples

ETC = Path(__file__).parents[2] / "etc"
SAMPLES = [(ETC / "bhyved.toml.sample").read_bytes(), *(path.read_bytes() for path in sorted(ETC.glob("template.d/*.toml")))]
#: What breaks parsers, and what is nearly right.
SIGNS = st.sampled_from(list("\"'[]{}=.,\n\r\0\ufeff\u2028")).map(str.encode)
WORDS = st.sampled_from(
    [
        b'"""',
        b"[[",
        b"\xff",
        b"-1",
        b"1e999",
        b"nan",
        b"9" * 5000,
        b"[" * 20_000,
        b"a." * 20_000,
        b"%(x)",
        b'template = ["t"]\n',
        b"[boot]\n",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sound file, with a few places cut, doubled, overwritten or filled."""
    sound = draw(
        st.sampled_from(SAMPLES) | guests().map(lambda spec: tomli_w.dumps({k: v for k, v in dump(spec).items() if k != "name"}).encode())
    )
    data = bytearray(sound)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 40)))
        data[start:stop] = draw(st.sampled_from([b"", bytes(data[start:stop] * 2)]) | SIGNS | WORDS | st.binary(max_size=6))
    return bytes(data)


FILES = st.binary(max_size=200) | mutated()
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).map(lambda name: f"{name}.toml")


@examples(60)
@given(main=st.just(b"") | FILES, guest=FILES, template=FILES, name=NAMES)
def test_any_files_are_read(main: bytes, guest: bytes, template: bytes, name: str) -> None:
    """Each guest can be used or has a problem, and every problem is one printable line; with good copies a sound guest is kept."""
    with TemporaryDirectory() as root:
        etc, good = Path(root, "etc"), Path(root, "good")
        for directory in (etc, etc / "vm.d", etc / "template.d", good, good / "vm.d", good / "template.d"):
            directory.mkdir(mode=0o755)
        path = etc / "bhyved.toml"
        sound = etc / "vm.d" / "sound.toml"
        sound.write_text("cpus = 1\n")
        read = configfiles.read(str(path))
        configfiles.Good(str(good), str(path)).save(read)
        assert set(read.loaded.vms) == {"sound"}

        path.write_bytes(main)
        (etc / "vm.d" / name).write_bytes(guest)
        (etc / "template.d" / "t.toml").write_bytes(template)
        (good / "vm.d" / name).write_bytes(template)
        sound.write_bytes(guest)
        strictly = configfiles.read(str(path))
        kept = configfiles.read(str(path), good=str(good))

    for problem in (*strictly.loaded.problems, *strictly.loaded.warnings):
        assert str(problem).isprintable()
    assert strictly.loaded.problems or "sound" in strictly.loaded.vms
    assert main or "sound" in kept.loaded.vms
