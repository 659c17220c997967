"""A guest's devices: what each opens on the host when bhyve sets it up, and what it says when it cannot (contract 1.7.5, 3).

Both engines get the same `Board`. Devices are set up in the order of their slots, as init_pci() does; the first that fails ends bhyve.
"""

from __future__ import annotations

import errno
import os
import stat

from bhyved.lab import legacy, netif, vnc
from bhyved.lab.freebsd import BHYVE_ERROR, Refusal, Settings, strerror, warn
from bhyved.lab.tree import is_true
from bhyved.lab.uart import open_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from bhyved.lab.tree import Tree
    from bhyved.lab.uart import Port, TcpPort

_AHCI_PORTS, _CONSOLE_PORTS = 32, 16  # contract 3.7
_NO_TAP = ("netgraph", "netmap", "vale", "slirp")  # backends that the lab lets pass and leaves unplugged
_TPMS = {"14": ("passthru",), "15": ("passthru", "swtpm"), "main": ("passthru", "swtpm")}  # contract 8.7


class _DeviceError(Exception):
    """A device cannot be had; its own line first, then why the whole set-up ends."""

    def __init__(self, text: str, number: int = errno.EINVAL) -> None:
        super().__init__(text)
        self.text = text
        self.number = number


class Board:
    """What the devices of one guest hold."""

    def __init__(self, root: str, settings: Settings, tree: Tree, vm: str) -> None:
        self.vm = vm
        self.ports: dict[str, Port | TcpPort] = {}  # com1 …, and a PCI uart by its slot
        self.sockets: dict[str, socket.socket] = {}  # listening, of virtio-console ports, by path
        self.taps: list[str] = []
        self.screen: vnc.Screen | None = None
        self.tpm: socket.socket | None = None  # the connection to swtpm, which ends with it
        self.has_more_buses = False  # than bus 0
        self._root = root
        self._settings = settings
        self._tree = tree
        self._held: list[int] = []
        self._end = "\n"  # CR LF once a console has been opened: contract 4.2
        self._has_stdio = False
        self._has_lpc = False

    def fit(self) -> None:
        """Set everything up. Waits for a viewer, if the guest's screen says so. Raises Refusal."""
        try:
            for bus, slot, function in _places(self._tree):
                self.has_more_buses = self.has_more_buses or bus > 0
                self._fit_function(bus, slot, function)
            if not self._settings.is_amd64:
                self._fit_console()
        except _DeviceError as error:
            if error.text:
                warn(error.text, self._end)
            warn(f"Device emulation initialization error: {strerror(error.number)}", self._end)
            raise Refusal(BHYVE_ERROR) from None
        self._fit_tpm()

    def close(self) -> None:
        """Let go of everything, at the end. What bhyve leaves lying about stays: sockets of virtio-console and VNC (contract 3.2)."""
        for port in self.ports.values():
            port.close()
        if self.screen is not None:
            self.screen.close()
        if self.tpm is not None:
            self.tpm.close()
        for fd in self._held:
            os.close(fd)
        self._held.clear()

    def _fit_function(self, bus: int, slot: int, function: int) -> None:
        options = self._tree.below(f"pci.{bus}.{slot}.{function}")
        where = f"pci slot {bus}:{slot}:{function}"
        model = options.get("device")
        if model is None:
            raise _DeviceError(f'{where} missing "device" value')
        if model in legacy.ALIASES and self._settings.is_amd64:
            raise _DeviceError(f'{where}: legacy device "{model}", use "{legacy.ALIASES[model]}" instead')
        if model not in legacy.models(amd64=self._settings.is_amd64):
            raise _DeviceError(f'{where} unknown device "{model}"')
        if model == "lpc":
            self._fit_lpc(bus)
        elif model in _FITTINGS:
            _FITTINGS[model](self, options, f"{bus}:{slot}:{function}")

    # ---- consoles

    def _fit_lpc(self, bus: int) -> None:
        if bus != 0:
            raise _DeviceError("LPC bridge can be present only on bus 0.")
        if self._has_lpc:
            raise _DeviceError("Only one LPC bridge is allowed.")
        self._has_lpc = True
        for name in legacy.COM_PORTS:
            backend = self._tree.get(f"lpc.{name}.path")
            if backend is not None:
                self._connect(name, backend, f"LPC device {name}")

    def _fit_console(self) -> None:
        backend = self._tree.get("console")
        if backend is not None:
            self._connect("com1", backend, "mmio uart")

    def _uart(self, options: dict[str, str], where: str) -> None:
        if "path" in options:
            self._connect(where, options["path"], f"PCI UART at {where}")

    def _connect(self, name: str, backend: str, device: str) -> None:
        try:
            self.ports[name] = open_port(backend, stdio_taken=self._has_stdio, tcp=not self._settings.is_14)
        except OSError:
            raise _DeviceError(f"Unable to initialize backend '{backend}' for {device}") from None
        self._has_stdio = self._has_stdio or backend == "stdio"
        if not backend.startswith("tcp"):
            self._end = "\r\n"

    # ---- disks

    def _disk(self, options: dict[str, str], where: str) -> None:
        del where
        if "ram" not in options:
            self._open_disk(options)

    def _ahci(self, options: dict[str, str], where: str) -> None:
        del where
        for number in range(_AHCI_PORTS):
            port = _under(options, f"port.{number}")
            if port:
                self._open_disk(port)

    def _open_disk(self, options: dict[str, str]) -> None:
        """For writing, and if that fails, without a word, for reading only."""
        path = options.get("path")
        if path is None:
            raise _DeviceError('Missing "path" for block device.')
        try:
            fd = _open_either(path, writable=not is_true(options.get("ro")))
        except OSError as error:
            reason = strerror(error.errno)
            raise _DeviceError(f"bhyve: Could not open backing file: {path}: {reason}", error.errno or 0) from None
        self._held.append(fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode) and not stat.S_ISBLK(os.fstat(fd).st_mode):
            raise _DeviceError(f"bhyve: Could not open backing file: {path}: {strerror(errno.EINVAL)}")

    # ---- network

    def _network(self, options: dict[str, str], where: str) -> None:
        del where
        backend = options.get("backend", "")
        if not backend or backend.startswith(_NO_TAP):
            return
        if not backend.startswith(("tap", "vmnet")):
            raise _DeviceError(f"net backend {backend} is not known")
        if "mac" in options and int(options["mac"].split(":")[0], 16) & 1:
            raise _DeviceError(f"Invalid MAC address {options['mac']}")
        try:
            # The lab's releases set it UP themselves: contract 3.2.
            self._held.append(netif.open_tap(self._root, backend, up=True))
        except OSError as error:
            raise _DeviceError(f"open of tap device {backend} failed", error.errno or 0) from None
        self.taps.append(backend)

    # ---- sockets

    def _console(self, options: dict[str, str], where: str) -> None:
        del where
        for number in range(_CONSOLE_PORTS):
            port = _under(options, f"port.{number}")
            if not port:
                continue
            for key in ("name", "path"):
                if key not in port:
                    raise _DeviceError(f"bhyve: vtcon: required {key} missing for port {number}")
            try:
                self.sockets[port["path"]] = _listen_unix(port["path"])
            except OSError as error:
                raise _DeviceError(f"bhyve: cannot create port {port['name']}: {strerror(error.errno)}", error.errno or 0) from None

    def _frame_buffer(self, options: dict[str, str], where: str) -> None:
        del where
        if self.screen is not None:
            raise _DeviceError("Only one frame buffer device is allowed.")
        try:
            self.screen = vnc.Screen(options, is_14=self._settings.is_14)
        except vnc.ScreenError as error:
            raise _DeviceError(str(error), error.number) from None
        if is_true(options.get("wait")):
            self.screen.wait()

    # ---- the rest

    def _share(self, options: dict[str, str], where: str) -> None:
        del where
        for key in ("sharename", "path"):
            if key not in options:
                raise _DeviceError(f"virtio-9p: {key} missing")
        try:
            self._held.append(os.open(options["path"], os.O_RDONLY | os.O_DIRECTORY))
        except OSError as error:
            raise _DeviceError(f"virtio-9p: failed to open {options['path']}", error.errno or 0) from None

    def _input(self, options: dict[str, str], where: str) -> None:
        del where
        try:
            self._held.append(os.open(options.get("path", ""), os.O_RDWR | os.O_NONBLOCK))
        except OSError as error:
            raise _DeviceError(f"vtinput: failed to open {options.get('path')}", error.errno or 0) from None

    def _passthru(self, options: dict[str, str], where: str) -> None:
        del where
        if not self._tree.flag("memory.wired", default=False):
            raise _DeviceError("bhyve: passthru requires guest memory to be wired")
        if "pptdev" in options:
            if not options["pptdev"].removeprefix("ppt").isdecimal() or int(options["pptdev"][3:]) >= len(self._settings.ppt):
                raise _DeviceError(f"bhyve: passthru: device {options['pptdev']} not found")
            return
        for key in ("bus", "slot", "func"):
            if key not in options:
                raise _DeviceError(f"bhyve: passthru: missing required {key} setting")
        selector = "/".join(options[key] for key in ("bus", "slot", "func"))
        if selector not in self._settings.ppt:
            raise _DeviceError(f"bhyve: PCI device at {selector} is not using the ppt(4) driver")

    def _fit_tpm(self) -> None:
        """The host's own, or swtpm's socket, which must be up (contract 3.4). A file has no default for the version."""
        kind = self._tree.get("tpm.type")
        if kind is None:
            return
        path, version = self._tree.get("tpm.path"), self._tree.get("tpm.version")
        usable = kind in _TPMS[self._settings.release] and path is not None and version == "2.0"
        if usable and path is not None:
            if kind == "swtpm":
                self.tpm = _connected(path)
            usable = self.tpm is not None if kind == "swtpm" else os.access(path, os.R_OK | os.W_OK)
        if not usable:
            warn("Failed to init TPM device", self._end)
            raise Refusal(BHYVE_ERROR)


def _places(tree: Tree) -> list[tuple[int, int, int]]:
    """Where there are devices, in the order of init_pci(). A name that is no place is overlooked."""
    found = set()
    for name in tree.below("pci"):
        words = name.split(".")
        if len(words) > 3 and all(word.isdecimal() for word in words[:3]):
            bus, slot, function = map(int, words[:3])
            if bus < 256 and slot < 32 and function < 8:
                found.add((bus, slot, function))
    return sorted(found)


def _under(options: dict[str, str], node: str) -> dict[str, str]:
    return {name[len(node) + 1 :]: value for name, value in options.items() if name.startswith(node + ".")}


def _open_either(path: str, *, writable: bool) -> int:
    if writable:
        try:
            return os.open(path, os.O_RDWR)
        except OSError:
            pass
    return os.open(path, os.O_RDONLY)


def _listen_unix(path: str) -> socket.socket:
    import socket

    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
    except OSError:
        listener.close()
        raise
    listener.listen(1)
    listener.setblocking(False)
    return listener


def _connected(path: str) -> socket.socket | None:
    """bhyve connects once, and swtpm serves one: a look beforehand would end it."""
    from bhyved.lab.tpm_proxy import connect

    try:
        return connect(path)
    except OSError:
        return None


_FITTINGS: dict[str, Callable[[Board, dict[str, str], str], None]] = {
    "virtio-blk": Board._disk,
    "nvme": Board._disk,
    "ahci": Board._ahci,
    "virtio-net": Board._network,
    "e1000": Board._network,
    "virtio-console": Board._console,
    "virtio-9p": Board._share,
    "virtio-input": Board._input,
    "fbuf": Board._frame_buffer,
    "uart": Board._uart,
    "passthru": Board._passthru,
}
