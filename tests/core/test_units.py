"""Sizes, durations, limits: what is read, what is refused, what is printed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.units import Duration, Limit, Settings, Size, dec_hook, enc_hook, span


@pytest.mark.parametrize(
    ("text", "size"),
    [("2G", 2 << 30), ("512M", 512 << 20), ("64k", 64 << 10), ("1T", 1 << 40), ("0K", 0), ("1536M", 1536 << 20)],
)
def test_size_is_read(text: str, size: int) -> None:
    """A size is a number with a suffix, in powers of 1024."""
    assert Size.parse(text) == size


@pytest.mark.parametrize("text", ["", "512", "2 G", "2GB", "-1G", "1.5G", "G", "٢G", "9999999T", "1e3M"])
def test_size_is_refused(text: str) -> None:
    """A size without a suffix is ambiguous for bhyve (contract 1.5), and nothing else is guessed."""
    with pytest.raises(ValueError, match="a size"):
        Size.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0), ("500ms", 0.5), ("2d", 172800.0), ("0s", 0.0), ("1.5s", 1.5), ("1w", 604800.0)],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    """A duration is one or more numbers with units."""
    assert Duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "90", "s", "1 m", "-5s", "5x", "1h 30m", "99999d", "1..5s", "inf"])
def test_duration_is_refused(text: str) -> None:
    """A duration without a unit, or beyond ten years, is refused."""
    with pytest.raises(ValueError, match="a duration"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (60, "1m"), (90, "1m30s"), (90.5, "1m30.5s"), (3600, "1h"), (86400, "1d"), (5400, "1h30m")],
)
def test_duration_is_printed(seconds: float, text: str) -> None:
    """A duration is printed with the largest units that fit."""
    assert str(Duration(seconds)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1.0, "0s"),
        (0.0, "0s"),
        (0.04, "0s"),
        (0.26, "300ms"),
        (9.94, "9.9s"),
        (10.0, "10s"),
        (10.4, "10s"),
        (59.6, "1m"),
        (61.0, "1m1s"),
        (3599.0, "59m59s"),
        (3600.0, "1h"),
        (3661.0, "1h1m"),
        (86_399.0, "23h59m"),
        (86_400.0, "1d"),
        (90_061.0, "1d1h"),
        (864_000.0, "10d"),
    ],
)
def test_a_span_for_people(seconds: float, text: str) -> None:
    """Its two largest units, and tenths only below ten seconds."""
    assert span(seconds) == text


@given(st.integers(min_value=0, max_value=(1 << 50) - 1))
def test_size_round_trip(kilobytes: int) -> None:
    """What is printed of a size reads back as the same size."""
    size = Size(kilobytes << 10)
    assert Size.parse(str(size)) == size


@given(st.integers(min_value=0, max_value=10 * 366 * 86400 * 1000))
def test_duration_round_trip(milliseconds: int) -> None:
    """What is printed of a duration reads back as the same duration, to the millisecond."""
    duration = Duration(milliseconds / 1000)
    assert Duration.parse(str(duration)) == pytest.approx(float(duration), abs=1e-6)


@given(st.integers(min_value=0, max_value=999_999), st.integers(min_value=1, max_value=10**8))
def test_limit_round_trip(count: int, seconds: int) -> None:
    """What is printed of a limit reads back as the same limit."""
    limit = Limit(count, Duration(seconds))
    assert Limit.parse(str(limit)) == limit
    assert hash(Limit.parse(str(limit))) == hash(limit)


@pytest.mark.parametrize("text", ["5", "5 in", "in 5m", "5 in 0s", "5 per 5m", "-1 in 5m", "5  in 5m"])
def test_limit_is_refused(text: str) -> None:
    """A limit needs a count and a window longer than nothing."""
    with pytest.raises(ValueError, match=r"a limit|a duration"):
        Limit.parse(text)


def test_settings_hold_text() -> None:
    """Scalars become bhyve's text; equal tables are equal and hash alike."""
    settings = Settings.parse({"a": True, "b": 3, "c": "x", "d": False})
    assert settings == {"a": "true", "b": "3", "c": "x", "d": "false"}
    assert hash(settings) == hash(Settings.parse({"c": "x", "b": "3", "a": "true", "d": "false"}))
    assert hash(settings) != hash(Settings.parse({"a": "x"}))
    with pytest.raises(ValueError, match="'d' must be"):
        Settings.parse({"d": [1]})


class _All(msgspec.Struct):
    size: Size
    duration: Duration
    limit: Limit
    settings: Settings


def test_hooks_carry_every_unit() -> None:
    """One pair of hooks writes and reads all four types."""
    table = {"size": "2G", "duration": "1h30m", "limit": "5 in 10m", "settings": {"a": "1"}}
    value = msgspec.convert(table, _All, dec_hook=dec_hook)
    assert msgspec.to_builtins(value, enc_hook=enc_hook) == table
    assert msgspec.json.decode(msgspec.json.encode(value, enc_hook=enc_hook), type=_All, dec_hook=dec_hook) == value


@pytest.mark.parametrize("raw", [5, True, 1.5, ["2G"], {"a": 1}])
def test_a_unit_is_text(raw: object) -> None:
    """A value of another TOML type is refused with a sentence, never guessed."""
    with pytest.raises(msgspec.ValidationError, match="must be text, in quotes"):
        msgspec.convert(raw, Size, dec_hook=dec_hook)


def test_settings_are_a_table() -> None:
    """Nothing else has names for its values."""
    with pytest.raises(msgspec.ValidationError, match=r'must be a table, such as \{ name = "value" \}'):
        msgspec.convert("a=1", Settings, dec_hook=dec_hook)
