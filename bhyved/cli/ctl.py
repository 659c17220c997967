"""vmctl(8): the command line of the client. Finds the verb, runs it, and turns what goes wrong into one line and an exit status."""

from __future__ import annotations

import os
import sys

from bhyved.ctl.arguments import Asked, find_verb, parse
from bhyved.ctl.connection import FAILED, OK, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from bhyved.ctl.verbs import Verb

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 and the signal, as a shell says it


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names and reasons are UTF-8, a locale may not be
    try:
        status = _run(words)
        sys.stdout.flush()
    except Failure as failure:
        status = _complain(failure)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains once more as it ends
        status = BROKEN_PIPE
    except OSError as error:
        status = _complain(Failure(FAILED, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)))
    return status


def _run(words: list[str]) -> int:
    if not words:
        from bhyved.ctl.helptext import short

        print(short(), file=sys.stderr, end="")
        return USAGE
    word, *rest = _verb_first(words)
    if word in ("-h", "--help", "help"):
        return _help(rest)
    if word == "--version":
        import bhyved

        print(f"vmctl {bhyved.__version__}")
        return OK
    if word.startswith("-"):
        raise Failure(USAGE, f"options of a verb come behind it: vmctl VERB {word} …; `vmctl --help` lists the verbs")
    verb = find_verb(word, rest)
    asked = parse(verb, rest)
    if asked.has("help"):
        return _help([verb.name])
    try:
        return function_of(verb)(asked)
    except KeyError as error:
        failure = _of_another_version(asked, f"its answer has no {error}")
        if failure is None:
            raise
        raise failure from None
    except Failure as failure:
        if failure.code == "unknown-method":
            raise _of_another_version(asked, failure.text) or failure from None
        if failure.code == "no-such-guest":
            raise _helped(asked, failure) from None
        raise


def _helped(asked: Asked, failure: Failure) -> Failure:
    from bhyved.ctl.unknown import helped

    return Failure(failure.status, helped(asked, failure.text), lines=failure.lines, code=failure.code)


def _of_another_version(asked: Asked, missing: str) -> Failure | None:
    """What to say when the daemon does not know what this vmctl asks for; None: it is of this version, or gone, and that is no reason."""
    from bhyved import __version__ as ours
    from bhyved.ctl.asking import version

    theirs = version(asked)
    if theirs in ("", ours):
        return None
    return Failure(FAILED, f"bhyved {theirs} runs, and this is vmctl {ours}: {missing}; `service bhyved restart` ends that, guests run on")


def _verb_first(words: list[str]) -> list[str]:
    """`vmctl --socket PATH list` is `vmctl list --socket PATH`."""
    before: list[str] = []
    rest = list(words)
    while rest and (rest[0] == "--json" or rest[0].partition("=")[0] == "--socket"):
        before.append(rest.pop(0))
        if before[-1] == "--socket" and rest:
            before.append(rest.pop(0))
    return [*rest[:1], *before, *rest[1:]] if rest else before


def function_of(verb: Verb) -> Callable[[Asked], int]:
    """What the verb runs, imported now."""
    module, _, name = verb.run.partition(":")
    function: Callable[[Asked], int] = getattr(__import__(f"bhyved.ctl.{module}", fromlist=[name]), name)
    return function


def _help(words: list[str]) -> int:
    from bhyved.ctl.helptext import general, of_verb

    print(of_verb(find_verb(words[0])) if words else general(), end="")
    return OK


def _complain(failure: Failure) -> int:
    try:
        sys.stdout.flush()
        for line in failure.lines:
            print(line, file=sys.stderr)
        print(f"vmctl: {failure.text}", file=sys.stderr)
    except BrokenPipeError:
        pass
    return failure.status


def script() -> NoReturn:
    """What bin/vmctl runs. To take the interpreter apart in the end would be a tenth of a short verb."""
    status = main()
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib is another import
            stream.flush()
        except OSError:
            pass
    os._exit(status)


if __name__ == "__main__":
    script()
