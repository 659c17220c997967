"""`vmctl doctor`: kept apart from the examination itself, which reads the configuration and takes its time to load."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.ctl.arguments import Asked


def doctor(asked: Asked) -> int:
    from bhyved.ctl.examination import examine

    return examine(asked)
