"""Strings of the configuration that have a form of their own: paths, names, addresses.

Each `parse` raises ValueError with the sentence the operator reads. What reaches bhyve's configuration file, or the command line of a
loader, is a `Text` at least: `%` and line ends cannot be written there on any version (contract 1.3).
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
NAME_LENGTH = 30  # VM_MAX_NAMELEN of older kernels is 32, and nmdm and description names carry more than the name (contract 1.5)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SLOT = re.compile(r"(?:(?:([0-9]{1,3}):)?([0-9]{1,2}):)?([0-9]{1,2})")
_PCI = re.compile(r"([0-9]{1,3})[/:]([0-9]{1,2})[/:]([0-7])")
_INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with the final NUL
_PORT = re.compile(r"[0-9]{1,5}")


class Line(str):
    """A non-empty line of text."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text:
            raise ValueError("must not be empty")
        if _CONTROL.search(text):
            raise ValueError("must be one line without control characters")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("must be valid Unicode") from None
        return cls(text)


class Text(Line):
    """A line that can be the value of a bhyve variable."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if "%" in text:
            raise ValueError('must not hold "%": no release of bhyve has a clean spelling for it')
        return super().parse(text)


class AbsPath(Text):
    """An absolute path. bhyve resolves relative ones against a directory nobody thinks of (contract 8.3)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text.startswith("/"):
            raise ValueError('must be an absolute path, beginning with "/"')
        return super().parse(text)


class SocketPath(AbsPath):
    """The path of a UNIX socket, which must fit into sockaddr_un."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if len(text.encode(errors="replace")) > 103:
            raise ValueError("must be shorter than 104 bytes: it is the path of a UNIX socket")
        return super().parse(text)


class GuestName(Text):
    """A guest's name: a file name, a device name, part of an nmdm name."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        why = name_problem(text)
        if why:
            raise ValueError(why)
        return cls(text)


def name_problem(name: str) -> str:
    """Why `name` cannot be a guest's name; empty when it can."""
    if not NAME.fullmatch(name):
        return 'a guest\'s name begins with a letter or digit and holds letters, digits, "_", "." and "-" only'
    if len(name) > NAME_LENGTH:
        return f"a guest's name has at most {NAME_LENGTH} characters"
    return ""


class Mac(Text):
    """A unicast MAC address, in lower case."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        lower = text.lower().replace("-", ":")
        if not _MAC.fullmatch(lower):
            raise ValueError('must be a MAC address such as "58:9c:fc:00:00:01"')
        if int(lower[:2], 16) & 1:
            raise ValueError("must be a unicast MAC address: its first byte is even")
        if lower == "00:00:00:00:00:00":
            raise ValueError("must not be the zero MAC address")
        return cls(lower)


class Uuid(Text):
    """The 36-character form of a UUID, in lower case."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        lower = text.lower()
        if not _UUID.fullmatch(lower):
            raise ValueError("must be a UUID of 36 characters, as uuidgen(1) prints it")
        return cls(lower)


class Slot(Text):
    """A PCI address `bus:slot:func`, with `slot` and `slot:func` short for bus 0 and function 0."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _SLOT.fullmatch(text)
        if match is None:
            raise ValueError('must be a PCI slot: "5", "5:1" (slot:function) or "0:5:1" (bus:slot:function)')
        first, second, third = match.groups()
        bus, slot, func = (first or 0, second, third) if second is not None else (0, third, 0)
        if int(bus) > 255 or int(slot) > 31 or int(func) > 7:
            raise ValueError("a PCI slot has a bus up to 255, a slot up to 31 and a function up to 7")
        return cls(f"{int(bus)}:{int(slot)}:{int(func)}")

    @property
    def numbers(self) -> tuple[int, int, int]:
        bus, slot, func = (int(part) for part in self.split(":"))
        return bus, slot, func


class PciDevice(Text):
    """A host device for passthru: `2/0/0` or `ppt0`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if re.fullmatch(r"ppt[0-9]{1,4}", text):
            return cls(text)
        match = _PCI.fullmatch(text)
        if match is None or int(match[1]) > 255 or int(match[2]) > 31:
            raise ValueError('must be a PCI device of the host: "2/0/0" (bus/slot/function) or "ppt0"')
        return cls("/".join(str(int(part)) for part in match.groups()))


class Interface(Text):
    """The name of a network interface."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _INTERFACE.fullmatch(text):
            raise ValueError('must be the name of an interface, at most 15 characters, such as "bridge0"')
        return cls(text)


class SectorSize(Text):
    """`512`, `4096` or logical/physical `512/4096`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        parts = text.split("/")
        numbers = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,6}", part)]
        if len(parts) > 2 or len(numbers) != len(parts) or any(n < 512 or n & (n - 1) for n in numbers) or numbers[0] > numbers[-1]:
            raise ValueError('must be a sector size, a power of two from 512, such as "4096" or logical/physical "512/4096"')
        return cls(text)


class Endpoint(Text):
    """A numeric address and a port: `127.0.0.1:4001`, `[::1]:4001`. bhyve resolves no names."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        split_endpoint(text)
        return cls(text)


class Listen(Text):
    """Where VNC listens: `127.0.0.1`, `127.0.0.1:5900`, `[::1]:5900`, `unix:/path`. Without a port bhyved chooses one."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if text.startswith("unix:"):
            SocketPath.parse(text.removeprefix("unix:"))
        elif text.startswith("["):
            split_endpoint(text if "]:" in text else f"{text}:0", least=0)
        else:
            split_endpoint(text if ":" in text else f"{text}:0", least=0)
        return cls(text)

    @property
    def has_port(self) -> bool:
        return self.startswith("unix:") or "]:" in self or (":" in self and not self.startswith("["))


def split_endpoint(text: str, *, least: int = 1) -> tuple[str, int]:
    """Address and port of `127.0.0.1:5900` or `[::1]:5900`."""
    address, colon, port = text.rpartition(":")
    sentence = 'must be a numeric address and a port, such as "127.0.0.1:5900" or "[::1]:5900"'
    if not colon or not _PORT.fullmatch(port):
        raise ValueError(sentence)
    if not least <= int(port) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    try:
        in_brackets = address.startswith("[") and address.endswith("]")
        address = str(IPv6Address(address[1:-1]) if in_brackets else IPv4Address(address))
    except AddressValueError:
        raise ValueError(sentence) from None
    return address, int(port)


class Resolution(Text):
    """`1024x768`: what fbuf accepts (contract 3.5)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
        if match is None:
            raise ValueError('must be width x height in pixels, such as "1024x768"')
        width, height = int(match[1]), int(match[2])
        if width < 640 or height < 480:
            raise ValueError("the smallest resolution of bhyve is 640x480")
        if width > 3840 or height > 2160:
            raise ValueError("the largest resolution of bhyve is 3840x2160")
        return cls(f"{width}x{height}")

    @property
    def pixels(self) -> tuple[int, int]:
        width, height = self.split("x")
        return int(width), int(height)


class Pattern(str):
    """A regular expression."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            re.compile(text)
        except (re.error, RecursionError, OverflowError) as err:
            raise ValueError(f"is no regular expression: {err}") from None
        return cls(text)
