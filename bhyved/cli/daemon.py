"""bhyved(8): the command line of the daemon."""

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import bhyved
from bhyved.core.errors import HostError
from bhyved.core.lastgood import Settled
from bhyved.ctl.amounts import counted
from bhyved.host import configfiles

OK, FAILED, USAGE, CONFIG = 0, 1, 64, 78  # sysexits.h


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["lab"]:
        # The stand-in host is no part of the daemon: it is loaded only when it is asked for.
        from bhyved.lab.foreground import main as lab

        return lab(words[1:])
    parser = _parser()
    asked = parser.parse_args(words)
    if asked.json and asked.command != "selftest":
        parser.error("--json is for selftest")
    if asked.command == "selftest":
        from bhyved.cli.selftest import selftest

        return selftest(asked.config, as_json=asked.json)
    if asked.check or asked.command == "check":
        return _check(asked.config)
    return _serve(asked.config, stop_all=asked.stop_all)


class _Parser(argparse.ArgumentParser):
    """argparse, with sysexits' word for bad usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"bhyved: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="bhyved", description="Supervisor for bhyve guests. They outlive it, it explains them.", epilog="See bhyved(8).")
    parser.add_argument("-c", "--config", default=configfiles.MAIN, metavar="FILE", help=f"main file; default {configfiles.MAIN}")
    parser.add_argument("-n", "--check", action="store_true", help="check the configuration and exit: 0 good, 78 not")
    parser.add_argument("--stop-all", action="store_true", help="take up what runs, stop it in order, and exit")
    parser.add_argument("--json", action="store_true", help="selftest: print the report as JSON")
    parser.add_argument("--version", action="version", version=f"bhyved {bhyved.__version__}")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("check", "lab", "selftest"),
        help="check: as -n; lab: a stand-in host to try things out (bhyved lab --help); selftest: does this host do what bhyved needs?",
    )
    return parser


def _check(config: str) -> int:
    """Every problem and warning of every file, a line each."""
    loaded = configfiles.read(config).loaded
    for problem in loaded.problems:
        print(problem, file=sys.stderr)
    for warning in loaded.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if loaded.problems:
        print(f"bhyved: {counted(len(loaded.problems), 'problem')}", file=sys.stderr)
        return CONFIG
    print(f"{config}: good, {counted(len(loaded.vms), 'guest')}")
    return OK


def _serve(config: str, *, stop_all: bool) -> int:
    gc.disable()  # what a start makes, stays: `app` has it collected again when all guests are known
    settled = configfiles.read(config, good=configfiles.good_directory(config))
    if settled.loaded.daemon is None:
        return _refuse(settled)
    # Only a daemon needs what follows, and it takes most of its start.
    from bhyved.app.daemon import Life
    from bhyved.app.serve import serve

    try:
        return serve(Life(config=os.path.abspath(config), settled=settled, spec=settled.loaded.daemon, stop_all=stop_all))
    except HostError as error:
        print(f"bhyved: {error}", file=sys.stderr)
        return CONFIG if error.fatal else FAILED


def _refuse(settled: Settled) -> int:
    for problem in settled.loaded.problems:
        print(problem, file=sys.stderr)
    print("bhyved: the main file cannot be used, and there is no good copy of it", file=sys.stderr)
    return CONFIG
