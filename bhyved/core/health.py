"""Whether a guest that is up still does its work: what a round of probes means. `daemon.health` asks, and does what follows.

Pure. One probe that succeeds is health: only when all of them have failed, several rounds in a row, is a guest taken as ill. So one
broken probe, or one lost packet, resets nobody.
"""

import enum
from collections.abc import Mapping

import msgspec

from bhyved.core.spec import Health


class Turn(enum.Enum):
    """What a round has changed."""

    NOTHING = enum.auto()
    ILL = enum.auto()  # act, and tell
    WELL = enum.auto()  # again: tell


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """How it has gone so far in this run."""

    failed: int = 0  # rounds in a row
    ill: bool = False  # which has been told


def after_round(spec: Health, course: Course, answers: Mapping[str, str]) -> tuple[Course, Turn]:
    """`answers`: probe → '', which is good, or why it failed."""
    if not all(answers.values()) or not answers:
        return Course(), Turn.WELL if course.ill else Turn.NOTHING
    failed = course.failed + 1
    if failed < spec.failures or (course.ill and spec.action == "event"):
        return Course(failed=failed, ill=course.ill), Turn.NOTHING
    # The next action needs as many failures again: a guest that is being reset, or writes its dump, gets that time.
    return Course(ill=True), Turn.ILL


def sentence(spec: Health, answers: Mapping[str, str]) -> str:
    """Why it is taken as ill."""
    probes = ", ".join(f"{probe} ({why})" for probe, why in sorted(answers.items()))
    times = "once" if spec.failures == 1 else f"{spec.failures} times in a row, {spec.period} apart"
    return f"{probes} failed {times}"
