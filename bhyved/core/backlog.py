"""What a viewer has not been sent yet: bounded, and exact about what it lost.

Output, gaps and events stay in the order in which they happened. When a viewer lags more than `limit` bytes, the oldest half of what waits
for it becomes a gap: larger holes, seldom, are easier to read around than small ones all the time.
"""

from collections import deque

from bhyved.core.frames import Gap

#: A viewer may lag this much before it loses bytes: several scheduling hiccups of a flood of 100 MB/s, a minute of a real 115200 baud line.
LAG_BYTES = 1 << 20
#: Events that may wait. They are rare; a viewer that let so many pile up is not reading at all.
EVENTS_MAX = 256


class Run:
    """Contiguous output that waits."""

    __slots__ = ("data", "offset")

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.data = bytearray(data)

    def take(self, size: int) -> bytes:
        part = bytes(self.data[:size])
        del self.data[:size]  # from the front: CPython moves a pointer
        self.offset += len(part)
        return part


class Piece:
    """Output ready to be sent."""

    __slots__ = ("data", "offset")

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.data = data


class Note:
    """An event ready to be sent, as the caller encoded it."""

    __slots__ = ("event",)

    def __init__(self, event: bytes) -> None:
        self.event = event


Item = Piece | Gap | Note


class Backlog:
    """The queue of one viewer. `next_offset` is that of the next byte it may be given."""

    def __init__(self, next_offset: int, limit: int = LAG_BYTES) -> None:
        self._items: deque[Run | Gap | Note] = deque()
        self._limit = limit
        self._waiting_bytes = 0
        self._notes = 0
        self.next_offset = next_offset
        self.lost_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def data(self, offset: int, data: bytes, why: str = "not kept") -> None:
        """Output at `offset`, not before `next_offset`; what lies between is a gap for the reason `why`."""
        if offset > self.next_offset:
            self.gap(self.next_offset, offset - self.next_offset, why)
        if not data:
            return
        last = self._items[-1] if self._items else None
        if isinstance(last, Run):
            last.data += data
        else:
            self._items.append(Run(offset, data))
        self.next_offset = offset + len(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > self._limit:
            self._drop(self._waiting_bytes - self._limit // 2)

    def sent(self, size: int) -> None:
        """`size` bytes went out directly, while nothing waited."""
        self.next_offset += size

    def gap(self, offset: int, count: int, why: str) -> None:
        self._items.append(Gap(offset, count, why))
        self.next_offset = offset + count

    def note(self, event: bytes) -> None:
        """An event, after everything that waits already."""
        if self._notes >= EVENTS_MAX:
            oldest = next(item for item in self._items if isinstance(item, Note))
            self._items.remove(oldest)
            self._notes -= 1
        self._items.append(Note(event))
        self._notes += 1

    def take(self, size: int) -> Item | None:
        """The next thing to send, at most `size` bytes of output; None when nothing waits."""
        if not self._items:
            return None
        head = self._items[0]
        if isinstance(head, Run):
            offset = head.offset
            part = head.take(size)
            self._waiting_bytes -= len(part)
            if not head.data:
                self._items.popleft()
            return Piece(offset, part)
        self._items.popleft()
        if isinstance(head, Note):
            self._notes -= 1
        return head

    def _drop(self, excess: int) -> None:
        self.lost_bytes += excess
        self._waiting_bytes -= excess
        kept: deque[Run | Gap | Note] = deque()
        for item in self._items:
            if not isinstance(item, Run) or not excess:
                kept.append(item)
                continue
            offset = item.offset
            count = len(item.take(excess))
            excess -= count
            before = kept[-1] if kept else None
            if isinstance(before, Gap) and before.why == "slow" and before.offset + before.size == offset:
                kept[-1] = Gap(before.offset, before.size + count, "slow")
            else:
                kept.append(Gap(offset, count, "slow"))
            if item.data:
                kept.append(item)
        self._items = kept
