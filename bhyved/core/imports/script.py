"""A shell script, or a line of one, that runs bhyve; and a bhyve_config(5) file, as `config.dump` prints it.

Nothing is run and no variable is expanded: `sh -x SCRIPT` prints what a script with variables comes to.
"""

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from getopt import GetoptError, getopt
from typing import Any

from bhyved.core.imports import variables
from bhyved.core.imports.commandline import tree_of
from bhyved.core.imports.imported import ForeignError, Imported, absolute

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_WRAPPERS = ("sudo", "doas", "nice", "exec", "time", "jexec", "daemon", "nohup", "env")
_DEFAULT_TREE = {"x86.strictmsr": "true"}  # bhyve's own defaults that are not ours
_ENDS = (";", "&", "&&", "||", "|", ")", "(", "{", "}")
_REDIRECTION = re.compile(r"[<>]+")


def is_config(text: str) -> bool:
    """Whether it is a bhyve_config(5) file."""
    lines = _lines(text)
    return (
        bool(lines)
        and all(_VARIABLE.fullmatch(line.partition("=")[0]) and "=" in line for line in lines)
        and any(line.startswith(("pci.", "memory.size=", "name=")) for line in lines)
    )


def has_command(text: str) -> bool:
    return any(_program(words) == "bhyve" for words in _commands(text))


def from_config(text: str, *, here: str, bridges: Mapping[str, str]) -> Imported:
    """Raises ForeignError."""
    tree = {}
    for line in _lines(text):
        key, _, value = line.partition("=")
        tree[key] = value
    return with_loader(variables.translate(_DEFAULT_TREE | tree, here=here, bridges=bridges), [], here)


def from_script(text: str, *, here: str, bridges: Mapping[str, str]) -> Imported:
    """The one bhyve command of a script, with the loader command before it. Raises ForeignError."""
    commands = list(_commands(text))
    runs = [words for words in commands if _program(words) == "bhyve"]
    if len(runs) != 1:
        raise ForeignError(f"there are {len(runs)} bhyve commands: leave the one of the guest that is to be imported")
    argv = _arguments(runs[0])
    if held := [word for word in argv if "$" in word or "`" in word]:
        raise ForeignError(f"{held[0]!r} is for the shell to expand: give the output of `sh -x SCRIPT`")
    loaders = [words for words in commands if _program(words) in ("bhyveload", "grub-bhyve")]
    return with_loader(from_arguments(argv, here=here, bridges=bridges), loaders, here)


def from_arguments(argv: Sequence[str], *, here: str, bridges: Mapping[str, str]) -> Imported:
    """What bhyve is called with, without a loader. Raises ForeignError."""
    tree, others = tree_of(argv)
    imported = variables.translate(_DEFAULT_TREE | tree, here=here, bridges=bridges)
    imported.notes += [f"{option} is left out: it has no key in bhyved's files" for option in others]
    return imported


def with_loader(imported: Imported, loaders: Sequence[list[str]], here: str) -> Imported:
    """`loaders`: the words of each loader's command. Raises ForeignError."""
    if "boot" in imported.table:
        return imported
    if not loaders:
        imported.table["boot"] = {"loader": "bhyveload"}
        imported.notes.append('no loader was found: boot.loader = "bhyveload" is a guess, "grub" is the other')
        return imported
    words = loaders[-1]
    program, argv = _program(words), _arguments(words)
    try:
        options, _ = getopt(argv, "Cc:d:e:h:l:m:S" if program == "bhyveload" else "evnESc:d:g:M:m:r:")
    except GetoptError as error:
        raise ForeignError(f"{program} has no such command line: {error.msg}") from None
    imported.table["boot"] = _bhyveload(options, here) if program == "bhyveload" else _grub(options, imported.notes)
    return imported


def _bhyveload(options: Sequence[tuple[str, str]], here: str) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for option, value in options:
        if option == "-d":
            table.setdefault("disk", []).append(absolute(here, value))
        elif option == "-e":
            name, _, text = value.partition("=")
            table.setdefault("env", {})[name] = text
        elif option in ("-h", "-l"):
            table["host-dir" if option == "-h" else "loader"] = absolute(here, value)
    return {"loader": "bhyveload"} | ({"bhyveload": table} if table else {})


def _grub(options: Sequence[tuple[str, str]], notes: list[str]) -> dict[str, Any]:
    keys = {"-r": "root", "-d": "directory", "-g": "file"}
    table: dict[str, Any] = {keys[option]: value for option, value in options if option in keys}
    notes.append("what was typed at grub's prompt, or piped into it, belongs into boot.grub.commands")
    if ("-n", "") in options:
        table["openbsd-console"] = False
    return {"loader": "grub"} | ({"grub": table} if table else {})


def _lines(text: str) -> list[str]:
    return [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]


def _commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command, as far as that can be told without a shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.lstrip("+ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        try:
            for word in lexer:
                if word in _ENDS:
                    yield words
                    words = []
                else:
                    words.append(word)
        except ValueError:
            continue  # a quote over several lines: no command of ours
        yield words


def _program(words: list[str]) -> str:
    return posixpath.basename(_bare(words)[0]) if _bare(words) else ""


def _bare(words: list[str]) -> list[str]:
    """Without what stands before a program: assignments, words of the shell, sudo and its like with their options."""
    at = 0
    while at < len(words):
        word = posixpath.basename(words[at])
        is_program = word in ("bhyve", "bhyveload", "grub-bhyve")
        if is_program:
            return words[at:]
        if not (word in _WRAPPERS or word in ("then", "do", "else", "if", "while", "!") or word.startswith("-") or "=" in word or at):
            return words
        at += 1
    return words


def _arguments(words: list[str]) -> list[str]:
    """What follows the program, up to the first redirection."""
    argv: list[str] = []
    for word in _bare(words)[1:]:
        if _REDIRECTION.match(word):
            if argv and argv[-1].isdecimal() and len(argv[-1]) == 1:
                argv.pop()  # the descriptor of `2>file`
            break
        argv.append(word)
    return argv
