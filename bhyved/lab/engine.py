"""What an engine is: a guest, as the stand-in bhyve sees it. There are two, `sim` and `qemu_engine`.

The bhyve around it keeps what both have in common: options, node, devices, signals, title, the com ports.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bhyved.lab.vnc import Screen

REBOOT, POWEROFF, HALT, TRIPLE_FAULT, ERROR, SUSPENDED = 0, 1, 2, 3, 4, 5  # contract 1.7.1


class Engine:
    """One guest, from power-on to its end. An outcome is bhyve's exit status, or minus the signal that bhyve dies of."""

    #: The guest reads its serial ports. While it does not, what is typed stays in the line.
    listens = True
    #: Its CPUs run no more, though nothing has ended.
    frozen = False

    def start(self) -> None:
        """Power on. Raises Refusal."""

    def fds(self) -> tuple[int, ...]:
        """`step` has something to do when one of them is readable."""
        return ()

    def writable(self) -> tuple[int, ...]:
        """… or writable."""
        return ()

    def wait_s(self) -> float | None:
        """… or after this time. None: never."""
        return None

    def step(self) -> int | None:
        """Go on as far as possible without waiting; the outcome, when the guest has ended."""
        raise NotImplementedError

    def typed(self, port: str, data: bytes) -> None:
        """Somebody typed on a com port."""

    def has_acpi(self) -> bool:
        """The guest has switched ACPI on, and so the power button is one."""
        return False

    def press(self) -> None:
        """The power button. A press that is not acknowledged yet absorbs the next ones."""

    def state(self) -> bytes:
        """What a suspend keeps of the guest."""
        return b""

    def show(self, screen: Screen) -> None:
        """The screen has news: a viewer who comes or goes."""
        screen.serve()

    def close(self) -> None:
        """Cut the power, if it is still on; what the guest wrote last still goes to its ports."""
