"""The command line of vmctl, read by the table in `verbs`. argparse costs more than everything else that a short verb does."""

from __future__ import annotations

from bhyved.ctl.connection import USAGE, Failure
from bhyved.ctl.verbs import BY_NAME, Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Asked:
    """What the person wants: a verb, guests, and options by key."""

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.names: list[str] = []
        self._given: dict[str, bool | str | int | float] = {}

    def put(self, key: str, value: bool | str | int | float) -> None:
        self._given[key] = value

    def has(self, key: str, default: bool = False) -> bool:
        """Whether a flag is set."""
        return bool(self._given.get(key, default))

    def is_given(self, key: str) -> bool:
        return key in self._given

    def text(self, key: str) -> str | None:
        """The words of an option; None: not given."""
        value = self._given.get(key)
        return None if value is None else str(value)

    def number(self, key: str) -> int | None:
        value = self._given.get(key)
        return None if value is None else int(value)

    def seconds(self, key: str) -> float | None:
        value = self._given.get(key)
        return None if value is None else float(value)


def find_verb(word: str, others: Sequence[str] = ()) -> Verb:
    """`others`: what stands behind it. Raises Failure."""
    verb = BY_NAME.get(word)
    if verb is None:
        raise Failure(USAGE, f'there is no verb "{word}"{_meant(word, others)} (vmctl --help)')
    return verb


def _meant(word: str, others: Sequence[str]) -> str:
    from bhyved.ctl.habits import MEANT

    if word in MEANT:
        return f"; instead: {MEANT[word]}"
    behind = next((other for other in others if other in BY_NAME), None)
    return nearest(word, BY_NAME) if behind is None else f"; the verb comes first: vmctl {behind} {word}"


def parse(verb: Verb, words: Sequence[str]) -> Asked:
    """What comes behind the verb. Options and names may be mixed; `--` ends the options. Raises Failure."""
    asked = Asked(verb)
    spellings = {spelling: option for option in verb.options for spelling in option.spellings}
    left = list(reversed(words))
    while left:
        word = left.pop()
        if word == "--":
            asked.names += reversed(left)
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = _found(verb, spellings, name)
            _take(verb, asked, option, name, value if equals else None, left)
        elif word.startswith("-") and len(word) > 1:
            _short(verb, asked, spellings, word, left)
        else:
            asked.names.append(word)
    if not asked.has("help"):
        _check_names(verb, asked)
    return asked


def _short(verb: Verb, asked: Asked, spellings: dict[str, Option], word: str, left: list[str]) -> None:
    """`-f`, `-n5`, `-fn5`."""
    for at in range(1, len(word)):
        name = f"-{word[at]}"
        option = _found(verb, spellings, name)
        if option.value:
            _take(verb, asked, option, name, word[at + 1 :] or None, left)
            return
        asked.put(option.key, option.constant)


def _take(verb: Verb, asked: Asked, option: Option, name: str, value: str | None, left: list[str]) -> None:
    if not option.value:
        if value is not None:
            raise _usage(verb, f"{name} takes no value")
        asked.put(option.key, option.constant)
        return
    if value is None:
        if not left:
            raise _usage(verb, f"{name} needs a value: {option.value}")
        value = left.pop()
    asked.put(option.key, _converted(verb, option, name, value))


def _converted(verb: Verb, option: Option, name: str, value: str) -> str | int | float:
    if option.choices and value not in option.choices:
        raise _usage(verb, f'{name} is one of {", ".join(option.choices)}, not "{value}"')
    if option.kind == "count" and not (value.isascii() and value.isdigit()):
        raise _usage(verb, f'{name} is a number, not "{value}"')
    if option.kind in ("count", "number"):
        try:
            return int(value)
        except ValueError:
            raise _usage(verb, f'{name} is a number, not "{value}"') from None
    if option.kind == "seconds":
        from bhyved.core.units import Duration

        try:
            return float(Duration.parse(value))
        except ValueError as error:
            raise _usage(verb, f'{name} "{value}": {error}') from None
    return value


def _check_names(verb: Verb, asked: Asked) -> None:
    if verb.guests == "none" and asked.names:
        raise _usage(verb, f'it takes no names, and "{asked.names[0]}" is one')
    if verb.guests == "file" and len(asked.names) != 1:
        raise _usage(verb, "it takes one file" + (f', and "{asked.names[1]}" is another' if asked.names else ""))
    if verb.guests == "one" and len(asked.names) != 1:
        raise _usage(verb, "it takes the name of one guest")
    if verb.guests == "one-and-snapshot" and len(asked.names) != 2:
        raise _usage(verb, "it takes a guest and the name of a snapshot")
    if verb.guests == "some" and not asked.names:
        raise _usage(verb, "it takes the name of a guest")
    if verb.guests == "some-or-all" and bool(asked.names) == asked.has("all"):
        raise _usage(verb, "give names or --all, not both" if asked.names else "it takes the name of a guest, or --all")


def _found(verb: Verb, spellings: dict[str, Option], name: str) -> Option:
    option = spellings.get(name)
    if option is None:
        raise _usage(verb, f"there is no option {name}{nearest(name, spellings)}")
    return option


def nearest(word: str, known: Iterable[str]) -> str:
    """What may have been meant, for the end of a sentence; or ''."""
    from difflib import get_close_matches

    # Dashes are alike in all options, and would make strangers of five letters near.
    bare = {each.lstrip("-"): each for each in known}
    near = get_close_matches(word.lstrip("-"), list(bare), 1, 0.65)
    return f'; did you mean "{bare[near[0]]}"?' if near else ""


def _usage(verb: Verb, text: str) -> Failure:
    return Failure(USAGE, f"{verb.name}: {text} (vmctl {verb.name} --help)")
