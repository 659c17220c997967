"""What `--help` prints, from the table of verbs: within 80 columns, since a rescue console has no more."""

from __future__ import annotations

import textwrap

from bhyved.ctl.verbs import COMMON, VERBS, Option, Verb

WIDTH = 79
_INDENT = 24
_GROUPS = (
    ("guests", ("list", "status", "show", "start", "stop", "restart", "reset", "poweroff", "nmi", "suspend", "resume", "hold", "release")),
    ("their disks", ("snapshot", "rollback")),
    ("consoles", ("console", "log")),
    ("what happened", ("why", "history", "events", "top", "web", "metrics")),
    ("the host", ("create", "import", "plan", "check", "doctor", "reload", "drain")),
)


def short() -> str:
    """For somebody who typed nothing else."""
    names = ", ".join(verb.name for verb in VERBS)
    verbs = textwrap.fill(f"verbs: {names}", WIDTH, subsequent_indent="       ")
    return f"usage: vmctl VERB [OPTION ...] [NAME ...]\n{verbs}\nvmctl --help says more, vmctl VERB --help everything\n"


def general() -> str:
    """`vmctl --help`."""
    summaries = {verb.name: verb.summary for verb in VERBS}
    lines = ["usage: vmctl VERB [OPTION ...] [NAME ...]", "", "Use the guests that bhyved looks after; see vmctl(8)."]
    for group, names in grouped():
        lines += ["", f"{group}:", *(f"  {name:<10}{summaries[name]}" for name in names)]
    lines += ["", "of every verb:", *(line for option in COMMON for line in _option(option))]
    lines += ["", "exit status: 0 done, 1 denied or failed, 64 usage, 69 no daemon, 75 timed out,", "77 not permitted, 78 configuration"]
    return "\n".join(lines) + "\n"


def grouped() -> list[tuple[str, list[str]]]:
    """Verbs under a heading each; those of no group come last."""
    known = [(group, [verb.name for verb in VERBS if verb.name in names]) for group, names in _GROUPS]
    placed = {name for _, names in known for name in names}
    rest = [verb.name for verb in VERBS if verb.name not in placed]
    return [*known, ("others", rest)] if rest else known


def of_verb(verb: Verb) -> str:
    """`vmctl VERB --help`."""
    lines = [f"usage: vmctl {verb.name} [OPTION ...] {verb.usage}".rstrip(), "", f"{verb.summary[0].upper()}{verb.summary[1:]}."]
    for paragraph in filter(None, verb.about.split("\n")):
        lines += ["", *textwrap.wrap(paragraph, WIDTH)]
    lines += ["", "options:", *(line for option in verb.options for line in _option(option))]
    if verb.examples:
        lines += ["", "examples:", *(line for example in verb.examples for line in _example(*example))]
    return "\n".join(lines) + "\n"


def _option(option: Option) -> list[str]:
    head = "  " + ", ".join(option.spellings) + (f" {option.value}" if option.value else "")
    body = textwrap.wrap(option.help, WIDTH - _INDENT)
    rest = [" " * _INDENT + line for line in body]
    return [head.ljust(_INDENT) + body[0], *rest[1:]] if len(head) < _INDENT - 1 else [head, *rest]


def _example(command: str, what: str) -> list[str]:
    line = f"  {command}"
    if not what:
        return [line]
    remark = f"  # {what}"
    return [line + remark] if len(line + remark) <= WIDTH else [f"  # {what}", line]
