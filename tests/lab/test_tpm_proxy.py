"""The proxy between QEMU's idea of swtpm and bhyve's."""

import socket
import struct
from pathlib import Path

import pytest

from bhyved.lab.tpm_proxy import TpmProxy, answer, connect


def test_a_command_reaches_swtpm_and_its_response_comes_back(tmp_path: Path) -> None:
    """After SET_DATA_FD whatever goes in at QEMU's data connection comes out at swtpm's data socket, both ways."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "tpm"))
        listener.listen()
        proxy = TpmProxy(connect(str(tmp_path / "tpm")))
        swtpm, _ = listener.accept()
    qemu = proxy.for_qemu.dup()
    proxy.start()
    data, passed = socket.socketpair()
    with qemu, swtpm, data, passed:
        for end in (qemu, swtpm, data):
            end.settimeout(10)

        socket.send_fds(qemu, [struct.pack(">I", 16)], [passed.fileno()])
        assert qemu.recv(100) == bytes(4)
        data.sendall(b"a TPM command")
        assert swtpm.recv(100) == b"a TPM command"
        swtpm.sendall(b"its response")

        assert data.recv(100) == b"its response"
        qemu.close()
        assert swtpm.recv(100) == b""  # and QEMU's end is swtpm's


def test_no_swtpm_no_proxy(tmp_path: Path) -> None:
    """A socket nobody listens on is an OSError at once, not a guest with a dead TPM."""
    with pytest.raises(FileNotFoundError):
        connect(str(tmp_path / "tpm"))


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (struct.pack(">I", 1), struct.pack(">Q", 0x3FFF)),
        (struct.pack(">I", 4), bytes(8)),
        (struct.pack(">II", 17, 4096), struct.pack(">IIII", 0, 4096, 4096, 4096)),
        (struct.pack(">II", 2, 0), bytes(4)),
    ],
)
def test_control_commands_are_answered_in_the_size_qemu_waits_for(request_: bytes, response: bytes) -> None:
    """Each answer has the length of that command's response structure, or QEMU would wait for more."""
    assert answer(request_) == response
