"""Strings with a form of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import values


@pytest.mark.parametrize(
    ("kind", "text", "result"),
    [
        (values.Mac, "58-9C-FC-00-00-01", "58:9c:fc:00:00:01"),
        (values.Uuid, "6BC34F7C-1B1E-11EF-8C8A-0242AC120002", "6bc34f7c-1b1e-11ef-8c8a-0242ac120002"),
        (values.Slot, "5", "0:5:0"),
        (values.Slot, "5:1", "0:5:1"),
        (values.Slot, "1:31:7", "1:31:7"),
        (values.Slot, "05", "0:5:0"),
        (values.PciDevice, "2:0:0", "2/0/0"),
        (values.PciDevice, "ppt3", "ppt3"),
        (values.Listen, "0.0.0.0:5900", "0.0.0.0:5900"),
        (values.Listen, "[::1]", "[::1]"),
        (values.Listen, "unix:/run/vnc.sock", "unix:/run/vnc.sock"),
        (values.Endpoint, "[::1]:4001", "[::1]:4001"),
        (values.SectorSize, "512/4096", "512/4096"),
        (values.Resolution, "1920x1080", "1920x1080"),
        (values.GuestName, "web1.example-2_b", "web1.example-2_b"),
        (values.AbsPath, "/dev/zvol/zroot/a,b\\c d", "/dev/zvol/zroot/a,b\\c d"),
    ],
)
def test_is_read(kind: type[values.Text], text: str, result: str) -> None:
    """What is right is taken, in one spelling."""
    assert kind.parse(text) == result


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (values.Text, "", "empty"),
        (values.Text, "a%b", 'must not hold "%"'),
        (values.Text, "a\nb", "one line"),
        (values.Text, "a\rb", "one line"),
        (values.Text, "a\0b", "one line"),
        (values.AbsPath, "disk.img", "absolute"),
        (values.AbsPath, "/a%b", "%"),
        (values.SocketPath, "/" + "x" * 103, "104 bytes"),
        (values.Mac, "59:9c:fc:00:00:01", "unicast"),
        (values.Mac, "58:9c:fc:00:00", "MAC"),
        (values.Mac, "00:00:00:00:00:00", "zero"),
        (values.Uuid, "6bc34f7c", "36 characters"),
        (values.Slot, "32", "up to 31"),
        (values.Slot, "0:1:8", "function up to 7"),
        (values.Slot, "256:0:0", "bus up to 255"),
        (values.Slot, "5,ahci", "PCI slot"),
        (values.Slot, "٥", "PCI slot"),
        (values.PciDevice, "2/0/8", "PCI device"),
        (values.PciDevice, "ppt", "PCI device"),
        (values.Interface, "bridge0; rm", "interface"),
        (values.Interface, "a" * 16, "15 characters"),
        (values.Listen, "localhost:5900", "numeric"),
        (values.Listen, "127.0.0.1:70000", "65535"),
        (values.Listen, "unix:vnc", "absolute"),
        (values.Endpoint, "127.0.0.1", "numeric"),
        (values.Endpoint, "127.0.0.1:0", "65535"),
        (values.SectorSize, "500", "power of two"),
        (values.SectorSize, "4096/512", "power of two"),
        (values.Resolution, "320x200", "640x480"),
        (values.Resolution, "8000x4000", "3840x2160"),
        (values.GuestName, "-rf", "letter or digit"),
        (values.GuestName, "a/b", "letter or digit"),
        (values.GuestName, "a" * 31, "30 characters"),
    ],
)
def test_is_refused(kind: type[values.Text], text: str, sentence: str) -> None:
    """What is wrong is refused with the sentence that says what would be right."""
    with pytest.raises(ValueError, match=sentence):
        kind.parse(text)


def test_a_pattern_must_compile() -> None:
    """A broken regular expression is found when the file is read, not when the guest boots."""
    assert values.Pattern.parse("login: $") == "login: $"
    with pytest.raises(ValueError, match="no regular expression"):
        values.Pattern.parse("(")


@given(st.text(max_size=40), st.sampled_from([values.Text, values.AbsPath, values.Interface, values.Slot, values.Endpoint, values.Listen]))
def test_no_value_breaks_a_line(text: str, kind: type[values.Text]) -> None:
    """Whatever is accepted is one line without `%`."""
    try:
        value = kind.parse(text)
    except ValueError:
        return
    assert value
    assert "%" not in value
    assert not any(ord(char) < 32 for char in value)
