"""Whatever a client sends, the daemon answers it or ends that connection, and goes on."""

import json
import tempfile
from contextlib import chdir
from pathlib import Path

import trio
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.methods import METHODS
from tests.daemon.controlkit import NOON, Client, served
from tests.daemon.controlkit import guest as a_guest
from tests.fuzz import examples

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["web1", "up", "down"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
KEYS = sorted({field for method in METHODS.values() for field in method.params.__struct_encode_fields__})
REQUESTS = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "id": st.integers(0, 9) | st.text(max_size=3),
        "method": st.sampled_from(sorted(METHODS)) | st.text(max_size=9),
    },
    optional={"params": st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4) | VALUES},
)
PIECES = st.binary(max_size=60) | REQUESTS.map(lambda request: json.dumps(request).encode() + b"\n") | st.just(b"\n")


async def read_all(client: Client) -> list[dict]:
    """Everything up to the end of the connection; each line must be an answer."""
    lines = []
    while (line := await client.line()) is not None:
        lines.append(line)
    return lines


async def converse(root: Path, pieces: list[bytes], errors: list[str]) -> None:
    async with served(root, a_guest("web1")) as daemon:
        daemon.guests.show("web1", since_at=NOON)
        async with daemon.client() as client, daemon.client() as other:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    try:
                        for piece in pieces:
                            await client.send(piece)
                            await trio.lowlevel.checkpoint()
                        client.sock.shutdown(trio.socket.SHUT_WR)
                    except OSError:
                        pass  # sent off

                nursery.start_soon(send)
                with trio.move_on_after(0.5):  # a request may wait for longer than anybody here does
                    for line in await read_all(client):
                        if "error" in line and line["error"]["data"]["code"] == "internal-error":
                            errors.append(str(line))
                nursery.cancel_scope.cancel()
            assert (await other.call("daemon.info"))["protocol"] == 1


@examples(60)
@given(pieces=st.lists(PIECES, max_size=8))
def test_any_bytes_end_in_answers(pieces):
    """No bytes make a bug, and another client is always served."""
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as directory, chdir(directory):
        trio.run(converse, Path(directory), pieces, errors)

    assert errors == []
