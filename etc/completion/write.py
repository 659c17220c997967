"""Writes the completion files beside it from vmctl's table of verbs: `python etc/completion/write.py`.

A test checks that they are current.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bhyved.ctl.verbs import VERBS, Option, Verb

HERE = Path(__file__).parent
_FILES = ("FILE", "PATH", "DIR", "KEY|FILE")
_NAMES = {"none": "no", "file": "files"}


def bash() -> str:
    """A function that looks for the verb first, since options may stand before it."""
    verbs = " ".join(verb.name for verb in VERBS)
    cases = "\n".join(
        f'\t{verb.name}) options="{" ".join(spelling for option in verb.options for spelling in option.spellings)}" '
        f'values="{" ".join(_valued(verb))}" guests={_NAMES.get(verb.guests, "yes")} ;;'
        for verb in VERBS
    )
    choices = "\n".join(
        f'\t"{verb.name} {spelling}") COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur")); return ;;'
        for verb in VERBS
        for option in verb.options
        for spelling in option.spellings
        if option.choices
    )
    files = "|".join(
        sorted({spelling for verb in VERBS for option in verb.options if option.value in _FILES for spelling in option.spellings})
    )
    return f"""\
# bash completion for vmctl(8), written by etc/completion/write.py

_vmctl()
{{
	local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
	local verb="" options="" values="" guests=no word skip=no
	COMPREPLY=()
	for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
		case $skip$word in
		yes*) skip=no ;;
		no--socket) skip=yes ;;
		no-*) ;;
		*) verb=$word; break ;;
		esac
	done
	case $prev in
	{files}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	esac
	case $verb in
	"") COMPREPLY=($(compgen -W "{verbs}" -- "$cur")); return ;;
{cases}
	esac
	case "$verb $prev" in
{choices}
	esac
	case " $values " in
	*" $prev "*) return ;;
	esac
	case $cur in
	-*) COMPREPLY=($(compgen -W "$options" -- "$cur")) ;;
	*) [ $guests != files ] || {{ COMPREPLY=($(compgen -f -- "$cur")); return; }}
		[ $guests = no ] || COMPREPLY=($(compgen -W "$(vmctl list -q 2>/dev/null)" -- "$cur")) ;;
	esac
}}

complete -F _vmctl vmctl
"""


def _valued(verb: Verb) -> list[str]:
    return [spelling for option in verb.options if option.value for spelling in option.spellings]


def zsh() -> str:
    """`_arguments`, a case for each verb."""
    verbs = "\n".join(f"\t\t{_quoted(f'{verb.name}:{verb.summary}')}" for verb in VERBS)
    cases = "\n".join(f"\t\t{verb.name})\n\t\t\t_arguments -s {_zsh_arguments(verb)}\n\t\t\t;;" for verb in VERBS)
    return f"""\
#compdef vmctl
# zsh completion for vmctl(8), written by etc/completion/write.py

_vmctl_guests()
{{
	local -a guests
	guests=(${{(f)"$(vmctl list -q 2>/dev/null)"}})
	_describe guest guests
}}

_vmctl()
{{
	local curcontext=$curcontext state line
	local -a verbs
	verbs=(
{verbs}
	)
	_arguments -C '1:verb:->verb' '*::argument:->rest'
	case $state in
	verb) _describe verb verbs ;;
	rest)
		case $words[1] in
{cases}
		esac
		;;
	esac
}}

_vmctl "$@"
"""


def _zsh_arguments(verb: Verb) -> str:
    lines = [_zsh_option(option, spelling) for option in verb.options for spelling in option.spellings]
    if verb.guests != "none":
        lines.append("'1:file:_files'" if verb.guests == "file" else "'*:guest:_vmctl_guests'")
    return " \\\n\t\t\t\t".join(lines)


def _zsh_option(option: Option, spelling: str) -> str:
    text = option.help.replace("[", "(").replace("]", ")").replace(":", ";")
    if not option.value:
        return _quoted(f"{spelling}[{text}]")
    action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.value in _FILES else ""
    return _quoted(f"{spelling}[{text}]:{option.value}:{action}")


def fish() -> str:
    """A line for each verb and each of its options."""
    taking = " ".join(verb.name for verb in VERBS if verb.guests not in _NAMES)
    lines = ["# fish completion for vmctl(8), written by etc/completion/write.py", "", "complete -c vmctl -f"]
    lines += [f"complete -c vmctl -n __fish_use_subcommand -a {verb.name} -d {_quoted(verb.summary)}" for verb in VERBS]
    lines.append(f"complete -c vmctl -n '__fish_seen_subcommand_from {taking}' -a '(vmctl list -q 2>/dev/null)' -d guest")
    lines += [f"complete -c vmctl -n '__fish_seen_subcommand_from {verb.name}' -F" for verb in VERBS if verb.guests == "file"]
    lines += [line for verb in VERBS for line in _fish_options(verb)]
    return "\n".join(lines) + "\n"


def _fish_options(verb: Verb) -> Iterator[str]:
    for option in verb.options:
        names = " ".join(f"-l {spelling[2:]}" if spelling.startswith("--") else f"-s {spelling[1:]}" for spelling in option.spellings)
        value = ""
        if option.choices:
            value = f" -x -a {_quoted(' '.join(option.choices))}"
        elif option.value:
            value = " -r -F" if option.value in _FILES else " -x"
        yield f"complete -c vmctl -n '__fish_seen_subcommand_from {verb.name}' {names}{value} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    """For zsh and fish alike: no backslash may end the word or stand before a quote."""
    return "'" + text.replace("\\", "\\\\").replace("'", "'\\''") + "'"


FILES = {"vmctl.bash": bash, "_vmctl": zsh, "vmctl.fish": fish}

if __name__ == "__main__":
    for name, written in FILES.items():
        (HERE / name).write_text(written())
