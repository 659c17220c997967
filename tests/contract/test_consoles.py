"""The com ports of a guest, the loader's console, and the ports that others connect to (contract 3.2, 3.5, 4)."""

import select
import signal
import socket
from pathlib import Path

import pytest

from tests.contract.stand_ins import PATIENCE_S, Bhyve, Lab
from tests.ports import free_port
from tests.waiting import until


def connected(port: int) -> socket.socket:
    """A client of a TCP port, as soon as it listens."""
    client = socket.socket()
    client.settimeout(PATIENCE_S)
    until(lambda: client.connect_ex(("127.0.0.1", port)) == 0, f"port {port} listens")
    return client


def read_until(client: socket.socket, text: bytes) -> bytes:
    """What the client receives, up to `text`."""
    received = b""
    while text not in received:
        chunk = client.recv(4096)
        assert chunk, f"the end came after {received!r}"
        received += chunk
    return received


def test_a_console_is_raw(lab: Lab, engine: str) -> None:
    """The line neither echoes nor waits for a newline: what is typed reaches the guest as it is."""
    bhyve = lab.start(lab__engine=engine)
    bhyve.console.wait_for({"sim": "login: ", "qemu": "> "}[engine])

    bhyve.console.type("abc")

    assert bhyve.console.wait_for("abc") == "abc"


def test_a_console_does_not_mind_a_hang_up(lab: Lab) -> None:
    """CLOCAL hides it (contract 4.4)."""
    bhyve = lab.start().wait_titled()

    assert not bhyve.console.heeds_carrier()


def test_a_guest_never_waits_for_a_reader(lab: Lab, engine: str) -> None:
    """With nobody reading, all output is lost but what the line keeps, and the guest goes on to its end."""
    if engine == "sim":
        bhyve = lab.start(lab__script="flood 4MiB; poweroff")
    else:
        bhyve = lab.start(lab__engine=engine)
        bhyve.console.wait_for("> ")
        for _ in range(12):
            bhyve.console.type("x" * 1000)
        bhyve.console.type("p")

    assert bhyve.ended() == 1


def test_a_reader_who_keeps_up_misses_nothing(lab: Lab) -> None:
    """A flood is as fast as its reader."""
    bhyve = lab.start(lab__script="flood 128KiB; print the end; wait")

    text = bhyve.console.wait_for("the end")

    assert text.index("the end") == (128 << 10) + 2


def test_what_is_typed_while_the_guest_boots_waits_for_it(lab: Lab) -> None:
    """bhyve stops reading while the guest does."""
    bhyve = lab.start(lab__script="boot 1s; print login: ; wait").wait_titled()
    bhyve.console.type("root\r")

    assert bhyve.console.wait_for("root\r\n") == "login: root\r\n"


def test_a_console_without_an_lpc_bridge_is_silently_useless(lab: Lab) -> None:
    """Even a path that does not exist is no error then (contract 3.3)."""
    lab.start(pci__0__31__0__device="", lpc__com1__path="/nowhere").wait_titled()


def test_stdio(lab: Lab) -> None:
    """Standard input is the keyboard; at its end the guest stays."""
    bhyve = lab.spawn("bhyve", "-k", str(lab.config(lpc__com1__path="stdio")), "web1").wait_titled()
    assert bhyve.process.stdin is not None
    assert bhyve.process.stdout is not None
    out = b""
    while not out.endswith(b"login: "):
        out += bhyve.process.stdout.read1(100)  # type: ignore[attr-defined]  # a BufferedReader
    bhyve.process.stdin.close()

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == 1


def test_tcp(lab: Lab) -> None:
    """One client at a time; the next is told so, and let in once the first has gone."""
    port = free_port()
    lab.start(lpc__com1__path=f"tcp=127.0.0.1:{port}", lab__script="wait").wait_titled()
    first = connected(port)
    first.sendall(b"one\r")
    read_until(first, b"one\r\n")

    with connected(port) as second:
        assert second.recv(100) == b"Socket already connected\n\0"
        assert second.recv(100) == b""

    first.close()
    with connected(port) as third:
        third.sendall(b"three\r")
        read_until(third, b"three\r\n")


@pytest.mark.parametrize("address", ["tcp=localhost", "tcp=127.0.0.1", "tcp=:1"])
def test_a_tcp_console_wants_address_and_port(lab: Lab, address: str) -> None:
    """Numeric both (contract 4.3)."""
    bhyve = lab.start(lpc__com1__path=address)

    assert bhyve.ended() == 4
    assert bhyve.said().startswith("Invalid number of parameter\nUnable to initialize backend 'tcp")


def test_14_has_no_tcp_console(lab: Lab) -> None:
    """There it is a path that does not exist."""
    lab.settle(release="14")

    assert lab.start(lpc__com1__path=f"tcp=127.0.0.1:{free_port()}").ended() == 4


def test_arm64_has_one_console(lab: Lab) -> None:
    """`console`, without any bridge; and no power button."""
    lab.settle(arch="arm64")
    console = lab.console()
    file = lab.config(console=console.path, pci__0__31__0__device="")
    bhyve = lab.spawn("bhyve", "-k", str(file), "web1", console=console)
    console.wait_for("login: ")

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == -signal.SIGTERM


def test_14_without_acpi_tables_has_no_power_button(lab: Lab) -> None:
    """SIGTERM always kills there (contract 1.8)."""
    lab.settle(release="14")
    bhyve = lab.start(acpi_tables="")
    bhyve.console.wait_for("login: ")

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == -signal.SIGTERM


def waiting_for_vnc(lab: Lab, port: int, engine: str = "sim") -> Bhyve:
    """A guest whose screen waits for its first viewer."""
    screen = {"device": "fbuf", "tcp": f"127.0.0.1:{port}", "wait": "true"}
    return lab.start(lab__engine=engine, **{f"pci__0__29__0__{key}": value for key, value in screen.items()})


def test_a_guest_may_wait_for_its_first_viewer(lab: Lab, engine: str) -> None:
    """No title until then; one viewer at a time is let in, and greeted as RFB wants it."""
    port = free_port()
    bhyve = waiting_for_vnc(lab, port, engine)
    until(lambda: lab.control("--get-active-cpus").stdout == "active cpus:\t (none)\n", "the node")
    assert bhyve.title == ""

    with connected(port) as viewer:
        assert read_until(viewer, b"\n") == b"RFB 003.008\n"
        bhyve.wait_titled()


def test_sigterm_kills_a_guest_that_waits_for_a_viewer(lab: Lab) -> None:
    """There is no ACPI yet, and a forced end is not seen either (contract 1.9)."""
    bhyve = waiting_for_vnc(lab, free_port())
    until(lambda: lab.control("--get-active-cpus").returncode == 0, "the node")
    lab.control("--force-poweroff")
    assert bhyve.process.poll() is None

    bhyve.send(signal.SIGTERM)

    assert bhyve.ended() == -signal.SIGTERM


def test_a_second_viewer_waits_its_turn(lab: Lab) -> None:
    """In the backlog, until the first has gone."""
    port = free_port()
    lab.start(pci__0__29__0__device="fbuf", pci__0__29__0__tcp=f"127.0.0.1:{port}").wait_titled()
    first = connected(port)
    read_until(first, b"\n")
    with connected(port) as second:
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(100)

        first.close()

        second.settimeout(PATIENCE_S)
        assert read_until(second, b"\n") == b"RFB 003.008\n"


def test_vnc_on_a_unix_socket_comes_after_14(lab: Lab) -> None:
    """The path must be free."""
    path = lab.root / "vnc"
    where = {"pci__0__29__0__device": "fbuf", "pci__0__29__0__rfb": f"unix:{path}"}
    lab.start(**where).wait_titled()
    assert path.is_socket()

    again = lab.start("web2", **where)

    assert again.ended() == 4
    assert again.said().startswith("bind: Address already in use\n")


def test_a_virtio_console_port_has_one_client(lab: Lab) -> None:
    """A second is closed at once; what the first says goes nowhere."""
    path = str(lab.root / "agent")
    port = {"pci__0__5__0__device": "virtio-console", "pci__0__5__0__port__0__name": "agent", "pci__0__5__0__port__0__path": path}
    lab.start(**port).wait_titled()
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for client in (first, second):
            client.settimeout(PATIENCE_S)
            client.connect(path)

        assert second.recv(100) == b""
        first.sendall(b"{}")


def test_an_idle_guest_costs_nothing(lab: Lab) -> None:
    """Its process is not woken once in half a second."""
    bhyve = lab.start()
    bhyve.console.wait_for("login: ")
    sleeping = until_asleep(bhyve.pid)

    select.select([], [], [], 0.5)

    assert until_asleep(bhyve.pid) == sleeping


def until_asleep(pid: int) -> str:
    """How often a process has given its CPU up, once it does nothing."""
    status = Path(f"/proc/{pid}/status")
    until(lambda: "State:\tS" in status.read_text(), "it sleeps")
    return next(line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches"))
