"""Makes swtpm, as bhyve expects it, into swtpm as QEMU expects it.

bhyve talks to swtpm's data socket, QEMU wants the control socket and hands a data connection over through it; one swtpm
cannot offer both. So the lab's qemu engine answers the few control commands QEMU needs itself, and relays the
data. That runs in a thread: QEMU's start-up blocks on the answers, at a time when the engine waits for QEMU.
"""

import contextlib
import selectors
import socket
import struct
import threading

# swtpm's include/swtpm/tpm_ioctl.h; QEMU has a copy in backends/tpm/tpm_ioctl.h.
_GET_CAPABILITY, _GET_ESTABLISHED, _SET_BUFFER_SIZE = 1, 4, 17
_ALL_CAPABILITIES = 0x3FFF
_BUFFER_BYTES = 4096  # of a TPM 2 command or response
_DONE = struct.pack(">I", 0)
_CHUNK = 4 * _BUFFER_BYTES


class TpmProxy:
    """One connection from a QEMU that is about to start to a swtpm that runs."""

    def __init__(self, swtpm: socket.socket) -> None:
        """`swtpm` is connected to the data socket, and the proxy's from now on."""
        self._backend = swtpm
        self._control, self.for_qemu = socket.socketpair()

    def start(self) -> None:
        """Relay until either side hangs up. Call it once QEMU is spawned: a fork and a thread do not go together."""
        self.for_qemu.close()
        threading.Thread(target=_serve, args=(self._control, self._backend), name="tpm", daemon=True).start()


def connect(path: str) -> socket.socket:
    """The one connection that swtpm takes: with `--terminate` it ends with that. Raises OSError when nothing listens there."""
    swtpm = socket.socket(socket.AF_UNIX)
    try:
        swtpm.connect(path)
    except OSError:
        swtpm.close()
        raise
    return swtpm


def answer(request: bytes) -> bytes:
    """What swtpm's control socket would say."""
    (command,) = struct.unpack_from(">I", request)
    if command == _GET_CAPABILITY:
        return struct.pack(">Q", _ALL_CAPABILITIES)
    if command == _GET_ESTABLISHED:
        return bytes(8)
    if command == _SET_BUFFER_SIZE:
        return struct.pack(">IIII", 0, _BUFFER_BYTES, _BUFFER_BYTES, _BUFFER_BYTES)
    return _DONE


def _serve(control: socket.socket, backend: socket.socket) -> None:
    with contextlib.ExitStack() as closing, contextlib.suppress(OSError):
        closing.enter_context(control)
        closing.enter_context(backend)
        ready = closing.enter_context(selectors.DefaultSelector())
        ready.register(control, selectors.EVENT_READ, None)
        while True:
            for key, _ in ready.select():
                if key.data is None:
                    request, fds, _, _ = socket.recv_fds(control, _CHUNK, 1)
                    if not request:
                        return
                    for fd in fds:  # that of CMD_SET_DATAFD
                        data = closing.enter_context(socket.socket(fileno=fd))
                        ready.register(data, selectors.EVENT_READ, backend)
                        ready.register(backend, selectors.EVENT_READ, data)
                    control.sendall(answer(request))
                else:
                    received = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]  # only sockets are registered
                    if not received:
                        return
                    key.data.sendall(received)
