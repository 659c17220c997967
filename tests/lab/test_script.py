"""The language of sim guests: what a script means, and what is no script."""

import pytest

from bhyved.lab.script import DEFAULT, ScriptError, parse, seconds, size_bytes


def told(script: str) -> list[tuple[object, ...]]:
    """The steps, as tuples of what they say."""
    return [(step.verb, step.word or step.text or step.number or None) for step in parse(script)]


def test_the_default_boots_to_a_login_prompt() -> None:
    """With the button on, and for ever."""
    assert told(DEFAULT) == [("boot", 0.1), ("acpi", "on"), ("print", "login: "), ("wait", None)]


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ("", []),
        (" ; ;", []),
        ("boot", [("boot", None)]),
        ("boot 200ms;sleep 2", [("boot", 0.2), ("sleep", 2.0)]),
        ("print  a b ;print c", [("print", " a b "), ("print", "c")]),
        (r"print a\nb\;c\\\e\q", [("print", "a\r\nb;c\\\x1b\\q")]),
        ("acpi off; acpi ignore; acpi reboot", [("acpi", "off"), ("acpi", "ignore"), ("acpi", "reboot")]),
        ("reboot; poweroff; halt; triple-fault; spin", [(verb, None) for verb in ("reboot", "poweroff", "halt", "triple-fault", "spin")]),
        ("exit 100; signal 6", [("exit", 100), ("signal", 6)]),
        ("flood 4MiB", [("flood", 4 << 20)]),
    ],
)
def test_a_script_is_steps(script: str, steps: list[tuple[object, ...]]) -> None:
    """Between semicolons; a text is taken as it stands."""
    assert told(script) == steps


@pytest.mark.parametrize(("script", "number"), [("acpi slow 3s", 3.0), ("acpi press 2", 2)])
def test_some_buttons_have_a_number(script: str, number: float) -> None:
    """How long a shutdown takes, which press counts."""
    assert parse(script)[0].number == number


@pytest.mark.parametrize(
    "script",
    [
        "dance",
        "wait 3s",
        "boot soon",
        "acpi",
        "acpi maybe",
        "acpi on now",
        "acpi slow",
        "acpi press x",
        "exit",
        "exit x",
        "flood",
        "flood 3PB",
    ],
)
def test_what_is_no_step_is_said(script: str) -> None:
    """The sentence repeats the words."""
    with pytest.raises(ScriptError, match=script.split()[-1]):
        parse(script)


@pytest.mark.parametrize(("text", "value"), [("0.2s", 0.2), ("200ms", 0.2), ("5m", 300), ("1h", 3600), ("3", 3)])
def test_durations(text: str, value: float) -> None:
    """With a unit or in seconds."""
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("1K", 1 << 10), ("2KiB", 2 << 10), ("3M", 3 << 20), ("1GiB", 1 << 30)])
def test_sizes(text: str, value: int) -> None:
    """With a unit or in bytes."""
    assert size_bytes(text) == value
