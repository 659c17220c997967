"""JSON-RPC 2.0, one message a line: bytes in, requests out; answers in, bytes out.

Nothing here knows a method. Whatever a client sends is a `Request` or a `Fault` to answer with; nothing else ever leaves `parse` and
`convert`. The caller owns the socket.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from bhyved.core.decode import nearest, shown
from bhyved.core.units import dec_hook, enc_hook

LINE_BYTES = 1 << 20
#: Ids come back in answers: a client may not make ours large with its own.
ID_LENGTH = 200

PARSE_ERROR, INVALID_REQUEST, UNKNOWN_METHOD, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
NOT_PERMITTED, NO_SUCH_GUEST, REFUSED, CONFIGURATION = -32001, -32002, -32003, -32004

Id = int | str | None
T = TypeVar("T", bound=msgspec.Struct)

_ENCODER = msgspec.json.Encoder(enc_hook=enc_hook)
_PLACE = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_MISSING = re.compile(r"^Object missing required field `(.*)`$")


class Fault(Exception):  # noqa: N818 - an answer, not a fault of ours
    """A request that gets no result: JSON-RPC's number, a code for programs, a sentence for people."""

    def __init__(self, number: int, code: str, text: str, *, problems: Sequence[str] = (), id: Id = None) -> None:
        super().__init__(text)
        self.number, self.code, self.text, self.problems, self.id = number, code, text, tuple(problems), id


def not_permitted(text: str) -> Fault:
    return Fault(NOT_PERMITTED, "not-permitted", text)


def no_such_guest(name: str) -> Fault:
    """For a guest that is not there and for one that is not the caller's to see: both must sound the same."""
    return Fault(NO_SUCH_GUEST, "no-such-guest", f"there is no guest {shown(name)}")


def invalid_params(text: str) -> Fault:
    return Fault(INVALID_PARAMS, "invalid-params", text)


class Request(msgspec.Struct, frozen=True):
    """What a client asks for."""

    id: int | str
    method: str
    params: dict[str, Any]


class LineTooLong(ValueError):  # noqa: N818
    """More than LINE_BYTES without an end: nothing more can be made of the connection."""


class Lines:
    """Collects bytes into lines. Holds at most one line and what was received with it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._looked = 0  # no line ends before this

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def pop(self) -> bytes | None:
        """The next line that is not blank, without its end; None: more is needed. Raises LineTooLong."""
        while True:
            end = self._buffer.find(b"\n", self._looked)
            if end > LINE_BYTES or (end < 0 and len(self._buffer) > LINE_BYTES):
                raise LineTooLong(f"a line is longer than {LINE_BYTES} bytes")
            if end < 0:
                self._looked = len(self._buffer)
                return None
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]  # from the front: CPython moves a pointer
            self._looked = 0
            if line.strip():
                return line

    def rest(self) -> bytes:
        """What came after the last line, for whoever takes the connection over."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._looked = 0
        return rest


def parse(line: bytes) -> Request:
    """One line. Raises Fault."""
    try:
        message = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's own errors and UnicodeDecodeError are ValueErrors
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error).lower()
        raise Fault(PARSE_ERROR, "parse-error", f"no JSON: {why}") from None
    if isinstance(message, list):
        raise _invalid("batches are not supported: send one request a line")
    if not isinstance(message, dict):
        raise _invalid("a request is a JSON object")
    return _request(message)


def _request(message: dict[str, Any]) -> Request:
    id = message.get("id")
    if isinstance(id, bool) or not isinstance(id, int | str) or len(str(id)) > ID_LENGTH:
        raise _invalid(f"a request needs an id: an integer or a string of at most {ID_LENGTH} characters")
    if message.get("jsonrpc") != "2.0":
        raise _invalid('a request says "jsonrpc": "2.0"', id)
    method, params = message.get("method"), message.get("params", {})
    if not isinstance(method, str):
        raise _invalid("a request names its method: a string", id)
    unknown = message.keys() - {"jsonrpc", "id", "method", "params"}
    if unknown:
        raise _invalid(f"unknown key {shown(min(unknown))}; known: jsonrpc, id, method, params", id)
    if not isinstance(params, dict):
        raise Fault(INVALID_PARAMS, "invalid-params", "params are an object, by name", id=id)
    return Request(id, method, params)


def _invalid(text: str, id: Id = None) -> Fault:
    return Fault(INVALID_REQUEST, "invalid-request", text, id=id)


def unknown_method(method: str, known: Iterable[str]) -> Fault:
    near = nearest(method, known)
    text = f"there is no method {shown(method)}" + (f"; {near}" if near else "")
    return Fault(UNKNOWN_METHOD, "unknown-method", text)


def convert(params: Mapping[str, Any], kind: type[T]) -> T:
    """Params as a struct, strictly. Raises Fault, naming the key and what would be right."""
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key in params:
        if key not in known:
            raise invalid_params(f"unknown key {shown(key)}; {nearest(key, known) or _known(known)}")
    try:
        return msgspec.convert(params, kind, strict=True, dec_hook=dec_hook)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise invalid_params(_complaint(str(error), kind)) from None


def _known(keys: Sequence[str]) -> str:
    return f"known: {', '.join(keys)}" if keys else "this method takes no params"


def _complaint(text: str, kind: type[msgspec.Struct]) -> str:
    """msgspec's sentence as one of ours: the key first, then what would be right."""
    place = _PLACE.search(text)
    key = place[1] if place else ""
    text = _PLACE.sub("", text)
    missing = _MISSING.match(text)
    if missing:
        return f"{missing[1]} is missing"
    choices = next((_choices(field.type) for field in msgspec.structs.fields(kind) if field.encode_name == key), [])
    if choices and text.startswith("Invalid enum value"):
        text = f"must be one of {', '.join(choices)}"
    elif text.startswith(("Expected", "Invalid", "Object")):
        text = text[0].lower() + text[1:].replace("`", "")
    return f"{key}: {text}" if key else text


def _choices(kind: Any) -> list[str]:
    """The words of a Literal, or of one among other types."""
    if get_origin(kind) is Literal:
        return [str(word) for word in get_args(kind)]
    return [word for inner in get_args(kind) for word in _choices(inner)]


def result(id: Id, value: Any) -> bytes:
    """The line that answers a request."""
    return _ENCODER.encode({"jsonrpc": "2.0", "id": id, "result": value}) + b"\n"


def error(id: Id, fault: Fault) -> bytes:
    """The line that says why there is no result."""
    data: dict[str, Any] = {"code": fault.code}
    if fault.problems:
        data["problems"] = fault.problems
    body = {"code": fault.number, "message": fault.text, "data": data}
    return _ENCODER.encode({"jsonrpc": "2.0", "id": id, "error": body}) + b"\n"


def notification(method: str, params: Any) -> bytes:
    """A line that answers nothing."""
    return _ENCODER.encode({"jsonrpc": "2.0", "method": method, "params": params}) + b"\n"
