"""One table of a configuration file: the base of every struct an operator's file becomes."""

from collections.abc import Iterator

import msgspec

Rule = tuple[str, str]  # key as written, relative to its table ("" is the table itself); the sentence


class RuleError(ValueError):
    """A table whose keys do not fit together: every broken rule of it."""

    def __init__(self, broken: tuple[Rule, ...]) -> None:
        super().__init__("; ".join(f"{key}: {sentence}" if key else sentence for key, sentence in broken))
        self.broken = broken


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Rules that need one key only live in the type of the key (`values`, `units`), rules between keys in `rules`."""

    def rules(self) -> Iterator[Rule]:
        """What is wrong between the keys of this table."""
        yield from ()

    def __post_init__(self) -> None:
        broken = tuple(self.rules())
        if broken:
            raise RuleError(broken)
