"""Lines, requests and answers, and that the protocol's page says what the structs say."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core import jsonrpc
from bhyved.core.answers import event_row
from bhyved.core.jsonrpc import LINE_BYTES, Fault, Lines, LineTooLong, Request
from bhyved.core.methods import METHODS
from bhyved.core.params import HoldParams, NoParams, OfGuests, PlanParams, StopParams, SubscribeParams, WaitParams
from bhyved.core.status import Event, Phase
from bhyved.core.units import Size

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def fault_of(ask: Callable[[], Any], kind: type) -> Fault | None:
    """The fault that `ask` ends with, or None when it gives a `kind`. Anything else fails the test."""
    try:
        assert isinstance(ask(), kind)
    except Fault as fault:
        return fault
    return None


@given(
    st.lists(st.binary(min_size=1, max_size=30).filter(lambda line: b"\n" not in line and line.strip())), st.binary(max_size=9), st.data()
)
def test_lines_do_not_depend_on_how_they_arrive(lines, tail, data):
    """However a stream is cut, the same lines come out, and the rest is what follows the last line end."""
    tail = tail.replace(b"\n", b"")
    stream = b"".join(line + b"\n" for line in lines) + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    reader, found = Lines(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        while (line := reader.pop()) is not None:
            found.append(line)

    assert found == lines
    assert reader.rest() == tail
    assert reader.rest() == b""


def test_blank_lines_are_no_requests():
    """Empty lines and line ends of other systems pass."""
    lines = Lines()
    lines.feed(b"\n  \r\n{}\r\n\n")

    assert lines.pop() == b"{}\r"
    assert lines.pop() is None


@pytest.mark.parametrize("data", [b"x" * (LINE_BYTES + 1), b"x" * (LINE_BYTES + 1) + b"\n"])
def test_a_line_has_a_greatest_length(data):
    """One byte more than 1 MiB is too long, whether or not its end has come."""
    lines = Lines()
    lines.feed(data[:LINE_BYTES])
    assert lines.pop() is None
    lines.feed(data[LINE_BYTES:])
    with pytest.raises(LineTooLong):
        lines.pop()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_fault(line):
    """Nothing but Fault leaves the parser, and every fault can be answered with."""
    fault = fault_of(lambda: jsonrpc.parse(line), Request)

    assert fault is None or fault.number in (-32700, -32600, -32602)
    assert fault is None or msgspec.json.decode(jsonrpc.error(fault.id, fault))["error"]["message"]


@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(("jsonrpc", "id", "method", "params", "x"), JSON)))
def test_any_json_is_a_request_or_a_fault(value):
    """Valid JSON that is no request is a fault as well, and its id comes back when it has one."""
    fault = fault_of(lambda: jsonrpc.parse(msgspec.json.encode(value)), Request)

    assert fault is None or fault.id is None or fault.id == value["id"]


@given(
    st.sampled_from(sorted(METHODS)),
    st.dictionaries(st.sampled_from(["name", "names", "all", "until", "since", "timeout"]) | st.text(max_size=5), JSON),
)
def test_any_params_are_params_or_a_fault(method, params):
    """Whatever params a client sends, the answer is a struct or one line of text."""
    kind = METHODS[method].params
    fault = fault_of(lambda: jsonrpc.convert(params, kind), kind)

    assert fault is None or (fault.number == -32602 and "\n" not in fault.text)


def test_a_request_has_id_method_and_params():
    """Ids are integers or strings and come back as they are; params may be missing."""
    assert jsonrpc.parse(b'{"jsonrpc":"2.0","id":"a","method":"vm.list"}') == Request("a", "vm.list", {})
    assert jsonrpc.parse(b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":1}}') == Request(7, "x", {"a": 1})
    assert jsonrpc.parse(b'{"jsonrpc":"2.0","id":%d,"method":"x"}' % 10**30).id == 10**30
    with pytest.raises(Fault, match="at most 200 characters"):
        jsonrpc.parse(b'{"jsonrpc":"2.0","id":"%s","method":"x"}' % (b"a" * 201))


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"nmae": "a"}, PlanParams, 'unknown key "nmae"; did you mean "name"?'),
        ({"zzz": 1}, StopParams, 'unknown key "zzz"; known: names, all, force, timeout'),
        ({"x": 1}, NoParams, 'unknown key "x"; this method takes no params'),
        ({}, PlanParams, "name is missing"),
        ({"name": None}, PlanParams, "name: expected str, got null"),
        ({"name": "a", "release": "13"}, PlanParams, "release: must be one of 14, 15, main"),
        ({"names": ["a", 7]}, OfGuests, "names[1]: expected str, got int"),
        ({"names": ["a"], "timeout": -1}, StopParams, "timeout: expected float >= 0.0"),
        ({"names": ["a"], "for": 0}, HoldParams, "for: expected float > 0.0"),
        ({"name": "a", "until": "soon"}, WaitParams, "until: must be one of up, ready, down, suspended"),
        ({"since": -1}, SubscribeParams, "since: expected int >= 0"),
        ({}, OfGuests, 'give names, or "all": true'),
    ],
)
def test_params_are_strict_and_say_what_would_be_right(params, kind, words):
    """The key comes first, then what is wrong with it."""
    with pytest.raises(Fault) as caught:
        jsonrpc.convert(params, kind)
    assert caught.value.text == words
    assert (caught.value.number, caught.value.code) == (-32602, "invalid-params")


def test_keys_are_kebab_case_and_for_is_for():
    """Words of Python stay in Python."""
    assert jsonrpc.convert({"names": ["a"], "for": 3}, HoldParams) == HoldParams(names=("a",), for_=3.0)
    assert jsonrpc.convert({"name": "a", "until": "up", "after-run": "r1"}, WaitParams).after_run == "r1"
    assert jsonrpc.convert({"since-time": 5}, SubscribeParams).since_time == 5.0


def test_answers_are_lines():
    """A result, an error with its problems, and a notification; sizes are written as an operator would."""
    fault = Fault(-32004, "configuration", "two\nlines", problems=["a: b"])

    assert jsonrpc.result(1, {"memory": Size.parse("2G")}) == b'{"jsonrpc":"2.0","id":1,"result":{"memory":"2G"}}\n'
    assert jsonrpc.error("x", fault) == (
        b'{"jsonrpc":"2.0","id":"x","error":{"code":-32004,"message":"two\\nlines","data":{"code":"configuration","problems":["a: b"]}}}\n'
    )
    assert jsonrpc.notification("end", {"next": 3}) == b'{"jsonrpc":"2.0","method":"end","params":{"next":3}}\n'


def test_an_event_has_the_same_keys_always():
    """phase is null where there is none; data is there when it holds something."""
    event = Event(seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), event="x")

    assert list(event_row(event)) == ["seq", "at", "event", "vm", "phase", "reason", "by"]
    assert event_row(event)["phase"] is None
    full = Event(seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), event="phase", phase=Phase.UP, data={"a": 1})
    assert event_row(full)["data"] == {"a": 1}


def documented() -> dict[str, tuple[str, str]]:
    """Method → params and result, as the page's tables have them."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 3 and re.match(r"`(vm|daemon|config|console|web)\.", cells[0]):
            for method in re.findall(r"`([^`]+)`", cells[0]):
                found[method] = (cells[1], cells[2])
    return found


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"events.subscribe"}))
def test_the_page_has_the_params_of_each_method(method):
    """Every key that a method takes is in its row, with `?` when it may be left out, and no other is."""
    params, _ = documented()[method]
    fields = msgspec.structs.fields(METHODS[method].params)
    required = {field.encode_name for field in fields if field.required}
    words = {word for part in re.findall(r"`([^`]+)`", params) for word in part.split()}
    either = {"names", "all"} if issubclass(METHODS[method].params, OfGuests) else set()

    assert {word.removesuffix("?") for word in words if word not in ("end", "all", "boot", "true")} - either == {
        field.encode_name for field in fields
    } - either - ({"all"} & words)
    assert required <= words


def test_the_page_has_what_a_subscription_takes():
    """The paragraph about events names each of its params."""
    text = PAGE.read_text()
    for field in msgspec.structs.fields(SubscribeParams):
        assert f"`{field.encode_name}?`" in text
