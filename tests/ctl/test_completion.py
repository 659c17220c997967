"""Completion in the shells: the files are current, and complete verbs, options, choices and names."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pexpect
import pytest

from etc.completion.write import FILES, HERE

PATIENCE_S = 30


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_current(name: str) -> None:
    """`python etc/completion/write.py` would change nothing."""
    assert (HERE / name).read_text() == FILES[name]()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with a vmctl that knows two guests."""
    program = tmp_path / "vmctl"
    program.write_text('#!/bin/sh\n[ "$*" = "list -q" ] && printf "web1\\nweb2\\n"\n')
    program.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


CASES = [
    (("sto",), {"stop"}),
    (("start", "we"), {"web1", "web2"}),
    (("start", "--no"), {"--no-wait"}),
    (("plan", "--release", ""), {"14", "15", "main"}),
    (("console", "--ste"), {"--steal"}),
    (("top", "-s", "con"), {"console"}),
]


def bash(words: Sequence[str], path: str) -> set[str]:
    script = 'source "$0"; COMP_WORDS=(vmctl "$@"); COMP_CWORD=$#; _vmctl; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", script, str(HERE / "vmctl.bash"), *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "found"), [*CASES, (("--socket", "/x", "hol"), {"hold"}), (("reload", ""), set()), (("hold", "--reason", ""), set())]
)
def test_bash(words: tuple[str, ...], found: set[str], path: str) -> None:
    """What Tab offers behind these words."""
    assert bash(words, path) == found


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(("words", "found"), CASES)
def test_fish(words: tuple[str, ...], found: set[str], path: str, tmp_path: Path) -> None:
    """What Tab offers behind these words."""
    script = f'source {HERE / "vmctl.fish"}; complete -C "vmctl {" ".join(words)}"'
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(["fish", "--no-config", "-c", script], check=True, capture_output=True, text=True, env=environment)

    offered = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert found <= offered
    assert offered - found <= {"web1", "web2"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(path: str, tmp_path: Path) -> None:
    """Tab completes a verb, an option and a name."""
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path), "PS1": "zsh> ", "TERM": "dumb"}
    shell = pexpect.spawn("zsh", ["-f", "-i"], env=environment, timeout=PATIENCE_S, encoding="utf-8")
    try:
        shell.sendline(
            f"unsetopt zle_bracketed_paste prompt_sp; fpath=({HERE} $fpath); autoload -U compinit; compinit -u -D; print re''ady"
        )
        shell.expect("ready")
        for typed, completed in (
            ("sto", "stop "),
            ("start --no", "start --no-wait "),
            ("plan --release ma", "plan --release main "),
            ("why web", "why web"),
        ):
            shell.send(f"vmctl {typed}\t")
            shell.expect_exact(f"vmctl {completed}" if typed == completed else completed.split()[-1][len(typed.split()[-1]) :])
            shell.sendcontrol("u")
        shell.sendline("exit")
        shell.expect(pexpect.EOF)
    finally:
        shell.close(force=True)
