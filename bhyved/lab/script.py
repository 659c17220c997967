"""What a sim guest does, as text: steps separated by `;`, in the guest's own file (`[bhyve] options = { "lab.script" = "…" }`).

    boot 0.2s            its serial port is deaf and dumb until then
    print TEXT           on a new line; \\n, \\r, \\t, \\e, \\\\ and \\; mean what they say
    acpi on              the power button shuts down from here on
    acpi off             there is no button: bhyve dies of SIGTERM
    acpi ignore          the button is acknowledged, nothing more
    acpi reboot          the button reboots
    acpi slow 3s         the button shuts down, which takes 3 seconds
    acpi press 3         the third press shuts down, those before are only acknowledged
    sleep 1s             a pause, in which the guest listens
    wait                 for ever
    reboot  poweroff  halt  triple-fault
    stderr TEXT          a line of bhyve's own, on its stderr
    exit N  signal N     the end of bhyve itself
    flood 4MiB           lines of text, as fast as the other side reads; if it does not read, they are lost
    spin                 one CPU at 100 %, the rest of the guest dead: no console, no button
    freeze               its CPUs run no more, as under a debugger: no console, no button, no reset

Pure. After the last step the guest waits.
"""

DEFAULT = "boot 0.1s; acpi on; print login: ; wait"

_UNITS_S = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))
_SIZES = {"": 1, "B": 1, "K": 1 << 10, "KIB": 1 << 10, "M": 1 << 20, "MIB": 1 << 20, "G": 1 << 30, "GIB": 1 << 30}
_ESCAPES = {"n": "\r\n", "r": "\r", "t": "\t", "e": "\x1b", "\\": "\\", ";": ";"}
_BUTTONS = ("on", "off", "ignore", "reboot", "slow", "press")
_BARE = ("wait", "reboot", "poweroff", "halt", "triple-fault", "spin", "freeze")


class ScriptError(ValueError):
    """The sentence says which step is wrong."""


class Step:
    """One step. `text` of print and stderr, `word` of acpi; `number` of seconds, bytes, presses, a status or a signal."""

    __slots__ = ("number", "text", "verb", "word")

    def __init__(self, verb: str, *, text: str = "", word: str = "", number: float = 0) -> None:
        self.verb = verb
        self.text = text
        self.word = word
        self.number = number


def parse(script: str) -> list[Step]:
    """The steps. Raises ScriptError."""
    steps = []
    for text in _split(script):
        if text.strip():
            try:
                steps.append(_step(text.lstrip()))
            except ScriptError as error:
                raise ScriptError(f"step {text.strip()!r}: {error}") from None
    return steps


def seconds(text: str) -> float:
    """`200ms`, `0.2s`, `5m` or bare seconds. Raises ScriptError."""
    for unit, factor in _UNITS_S:
        if text.endswith(unit) and _is_number(text[: -len(unit)]):
            return float(text[: -len(unit)]) * factor
    if _is_number(text):
        return float(text)
    raise ScriptError(f"{text!r} is no duration: 0.2s, 200ms, 5m")


def size_bytes(text: str) -> int:
    """`4MiB`, `64K` or bare bytes. Raises ScriptError."""
    digits = text.rstrip("BbIiKkMmGg")
    factor = _SIZES.get(text[len(digits) :].upper())
    if not digits.isdecimal() or factor is None:
        raise ScriptError(f"{text!r} is no size: 4MiB, 64K")
    return int(digits) * factor


def _split(script: str) -> list[str]:
    """At each `;` that no backslash stands before."""
    parts = [""]
    escaped = False
    for letter in script:
        if letter == ";" and not escaped:
            parts.append("")
            continue
        escaped = letter == "\\" and not escaped
        parts[-1] += letter
    return parts


def _step(text: str) -> Step:
    verb, _, rest = text.partition(" ")
    word = rest.strip()
    verb = verb.rstrip()
    if verb in ("print", "stderr"):
        return Step(verb, text=_unescaped(rest))
    if verb in ("boot", "sleep"):
        return Step(verb, number=seconds(word or "0"))
    if verb == "acpi":
        return _acpi(word)
    if verb == "flood":
        return Step("flood", number=size_bytes(word))
    if verb in ("exit", "signal"):
        if not word.isdecimal():
            raise ScriptError(f"{verb} wants a number")
        return Step(verb, number=int(word))
    if verb in _BARE and not word:
        return Step(verb)
    raise ScriptError("is unknown")


def _acpi(words: str) -> Step:
    word, _, rest = words.partition(" ")
    if word not in _BUTTONS or (bool(rest) != (word in ("slow", "press"))):
        raise ScriptError("acpi is one of on, off, ignore, reboot, slow DURATION, press NUMBER")
    if word == "press":
        if not rest.strip().isdecimal():
            raise ScriptError("press wants a number")
        return Step("acpi", word=word, number=int(rest))
    return Step("acpi", word=word, number=seconds(rest.strip()) if rest else 0)


def _unescaped(text: str) -> str:
    done = ""
    letters = iter(text)
    for letter in letters:
        if letter != "\\":
            done += letter
            continue
        after = next(letters, "")
        done += _ESCAPES.get(after, letter + after)
    return done


def _is_number(text: str) -> bool:
    return bool(text) and text.replace(".", "", 1).isdecimal()
