"""The PCI slots of a guest's devices, counted as vm-bhyve counts them in its `vm-run`."""

FIRST = 4  # unless start_slot says otherwise
_SLOTS, _FUNCTIONS = 32, 8
_LPC = 31  # of bus 0: vm-bhyve leaves it to the LPC bridge


class Slots:
    """Where the next device goes."""

    def __init__(self, first: int) -> None:
        self.bus, self._slot, self._function = 0, first, 0

    def place(self) -> str:
        return f"{self.bus}:{self._slot}:{self._function}"

    def next_function(self) -> None:
        """Of the same slot: whoever takes more than eight asks for room first."""
        self._function += 1

    def make_room(self) -> None:
        """Go on to the next slot where this one is full."""
        if self._function >= _FUNCTIONS:
            self.next_slot()

    def next_slot(self) -> None:
        self._slot, self._function = self._slot + 1, 0
        if self._slot >= (_LPC if self.bus == 0 else _SLOTS):
            self.bus, self._slot = self.bus + 1, 0
