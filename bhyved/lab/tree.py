"""bhyve's configuration tree: dotted names and values, whoever wrote them (`-k`, `-o`, `-s`, …); the last write wins.

After usr.sbin/bhyve/config.c, whose refusals and whose expansion of `%(name)` it repeats (contract 1.3).
"""

from collections.abc import Iterator

from bhyved.lab.freebsd import BHYVE_ERROR, err, errx, warn

_TRUE = ("true", "on", "yes", "1")
_FALSE = ("false", "off", "no", "0")
_DEPTH = 15  # of nested references


def is_true(value: str | None) -> bool:
    """Whether a device's boolean option is set; nothing is false."""
    return value is not None and value.lower() in _TRUE


class Tree:
    """Flat inside: a name that others lie below is a node, every other name a variable."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def set(self, name: str, value: str) -> None:
        """Write one variable. Raises Refusal where a name would be both, a node and a variable."""
        parts = name.split(".")
        if not all(parts[:-1]):
            raise errx(BHYVE_ERROR, f"Invalid configuration node {name}")
        if not parts[-1]:
            raise errx(BHYVE_ERROR, f"Invalid config node name {name}")
        for length in range(1, len(parts)):
            inner = ".".join(parts[:length])
            if inner in self._values:
                raise errx(BHYVE_ERROR, f"Configuration node {name} is a child of existing variable {inner}")
        if self.has_node(name):
            raise errx(BHYVE_ERROR, f"Attempting to add value {value} to existing node {name}")
        self._values[name] = value

    def set_option(self, text: str) -> bool:
        """`name=value`; False when it is not one."""
        name, _, value = text.partition("=")
        if not value:
            return False
        self.set(name, value)
        return True

    def load(self, path: str) -> None:
        """A file of variables. Only empty lines and those that begin with # are skipped."""
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                lines = file.read().split("\n")
        except OSError as error:
            raise err(BHYVE_ERROR, f"Failed to open configuration file {path}", error) from None
        for count, line in enumerate(lines, 1):
            if line and not line.startswith("#") and not self.set_option(line):
                raise errx(BHYVE_ERROR, f"{path} line {count}: invalid config option '{line}'")

    def has_node(self, name: str) -> bool:
        """Something lies below `name`."""
        return any(other.startswith(name + ".") for other in self._values)

    def get(self, name: str) -> str | None:
        """A variable, its references expanded."""
        value = self._values.get(name)
        return None if value is None else self._expanded(value, 0)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean variable. Raises Refusal when it has another word."""
        value = self.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise errx(BHYVE_ERROR, f"Invalid value {value} for boolean variable {name}")

    def number(self, name: str, default: int) -> int:
        """A whole number. Raises Refusal when it is none."""
        value = self.get(name)
        if value is None:
            return default
        try:
            return int(value, 0)
        except ValueError:
            raise errx(BHYVE_ERROR, f"Invalid value for {name}: '{value}'") from None

    def below(self, node: str) -> dict[str, str]:
        """The variables under a node, by the rest of their names."""
        start = node + "."
        return {name[len(start) :]: self.get(name) or "" for name in self._values if name.startswith(start)}

    def dump(self) -> Iterator[str]:
        """`name=value` of everything, unexpanded, as config.dump prints it."""
        for name in sorted(self._values):
            yield f"{name}={self._values[name]}"

    def flat(self) -> dict[str, str]:
        """Everything, expanded."""
        return {name: self._expanded(value, 0) for name, value in self._values.items()}

    def _expanded(self, value: str, depth: int) -> str:
        if "%" not in value:
            return value  # a backslash is an escape only where there is a %
        if depth > _DEPTH:
            warn(f'bhyve: Too many recursive references in configuration value "{value}"')
            return ""
        done, rest = "", value
        while rest:
            if rest[0] == "\\" and len(rest) > 1:
                done, rest = done + rest[1], rest[2:]
                continue
            end = rest.find(")") if rest.startswith("%(") else -1
            if end > 0:
                done, rest = done + self._reference(rest[2:end], depth), rest[end + 1 :]
                continue
            if rest[0] == "%":
                warn(f'bhyve: Invalid reference in configuration value "{value}"')
            done, rest = done + rest[0], rest[1:]
        return done

    def _reference(self, name: str, depth: int) -> str:
        value = self._values.get(name)
        if value is None:
            warn(f'bhyve: Invalid reference "{name}" in configuration value')
            return ""
        return self._expanded(value, depth + 1)
