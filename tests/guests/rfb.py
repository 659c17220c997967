"""A VNC viewer of one picture: the RFB 3.8 handshake (RFC 6143) and a raw frame, no more."""

import socket
import struct
from dataclasses import dataclass

NO_AUTHENTICATION, VNC_AUTHENTICATION = 1, 2
_RAW_ENCODING = 0
_PIXEL_BYTES = 4


@dataclass(frozen=True)
class Picture:
    """A frame as the server sent it, four bytes a pixel."""

    width: int
    height: int
    pixels: bytes

    @property
    def colours(self) -> int:
        """How many different pixels there are; a screen nobody has drawn on has one."""
        return len({self.pixels[at : at + _PIXEL_BYTES] for at in range(0, len(self.pixels), _PIXEL_BYTES)})


class Viewer:
    """One connection. The caller gives a connected socket with a time limit and closes it."""

    def __init__(self, connection: socket.socket) -> None:
        """Read the server's version and the ways it lets viewers in."""
        self._socket = connection
        version = self._read(12)
        assert version == b"RFB 003.008\n", version
        connection.sendall(version)
        (count,) = self._read(1)
        assert count, self._reason()
        self.security = tuple(self._read(count))

    def enter(self) -> tuple[int, int]:
        """Come in without a password; the size of the screen."""
        self._socket.sendall(bytes([NO_AUTHENTICATION]))
        assert self._read(4) == bytes(4), "refused"
        return self._start()

    def enter_with_wrong_password(self) -> str:
        """Answer the challenge with nonsense; the server's reason for refusing."""
        self._socket.sendall(bytes([VNC_AUTHENTICATION]))
        challenge = self._read(16)
        self._socket.sendall(bytes(byte ^ 0xFF for byte in challenge))
        assert self._read(4) != bytes(4), "a wrong password was accepted"
        return self._reason()

    def picture(self) -> Picture:
        """What the screen shows now. Comes after `enter`."""
        self._socket.sendall(struct.pack(">BxHi", 2, 1, _RAW_ENCODING))
        self._socket.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self._width, self._height))
        canvas = bytearray(self._width * self._height * _PIXEL_BYTES)
        assert self._read(1) == b"\0", "not a frame"
        (rectangles,) = struct.unpack(">xH", self._read(3))
        for _ in range(rectangles):
            self._draw(canvas)
        return Picture(self._width, self._height, bytes(canvas))

    def _start(self) -> tuple[int, int]:
        self._socket.sendall(b"\1")  # shared, as bhyve treats every viewer
        self._width, self._height = struct.unpack(">HH", self._read(4))
        bits_per_pixel = self._read(16)[0]
        assert bits_per_pixel == 8 * _PIXEL_BYTES
        self._read(*struct.unpack(">I", self._read(4)))  # its name
        return self._width, self._height

    def _draw(self, canvas: bytearray) -> None:
        left, top, width, height, encoding = struct.unpack(">HHHHi", self._read(12))
        assert encoding == _RAW_ENCODING
        rows = self._read(width * height * _PIXEL_BYTES)
        for row in range(height):
            start = ((top + row) * self._width + left) * _PIXEL_BYTES
            canvas[start : start + width * _PIXEL_BYTES] = rows[row * width * _PIXEL_BYTES : (row + 1) * width * _PIXEL_BYTES]

    def _reason(self) -> str:
        return self._read(*struct.unpack(">I", self._read(4))).decode()

    def _read(self, count: int) -> bytes:
        received = bytearray()
        while len(received) < count:
            chunk = self._socket.recv(count - len(received))
            if not chunk:
                raise ConnectionError(f"the server hung up after {len(received)} of {count} bytes")
            received += chunk
        return bytes(received)
