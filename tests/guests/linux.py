"""The Linux guests of the tests: Debian's cloud kernel with a busybox, by -kernel, as a UEFI application, or from a CD.

Built once per machine from Debian packages that are downloaded and unpacked, never installed, and kept under
$BHYVED_TEST_CACHE (default ~/.cache/bhyved-tests). A test calls `direct()`, `uefi()` or `installer()`; where the machine
lacks something, that skips the test and says what is missing.
"""

import fcntl
import hashlib
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bhyved.lab import guest512
from tests.guests import initramfs

DOWNLOAD_S = 300.0  # 71 MB from a slow mirror
TOOL_S = 60.0
# Each word was measured under TCG; together they save half a second of two.
CMDLINE = "console=ttyS0 quiet tsc=reliable no_timer_check mitigations=off random.trust_cpu=on cryptomgr.notests lsm= audit=0 nokaslr"
FAT_BYTES = 64 << 20  # FAT32 wants 65,525 clusters; the boot image takes about 20 MB of it
OVMF = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
GRUB_MODULES = Path("/usr/lib/grub/i386-pc")
CD_GREETING = "GRUB starts the installer from the CD"
SYSTEM = "/install/system.img"  # what the installer finds to put on the disk: the 512-byte guest, which counts on from 41
BOOTS_SO_FAR = 41
_GRUB_CFG = f"""\
serial --unit=0 --speed=115200
terminal_output serial
echo "{CD_GREETING}"
linux /bzImage {CMDLINE}
initrd /initrd /system.cpio
boot
"""


class UnavailableError(Exception):
    """This machine cannot build the guest; the text says what is missing."""


@dataclass(frozen=True)
class Direct:
    """A kernel and root file system that QEMU loads itself, in the place of bhyveload or grub-bhyve."""

    kernel: Path
    initrd: Path
    cmdline: str = CMDLINE


@dataclass(frozen=True)
class Uefi:
    """A disk image that UEFI firmware boots (EFI/BOOT/BOOTX64.EFI). Copy it before a guest writes to it."""

    disk: Path


def direct(*, full: bool = False) -> Direct:
    """The Linux guest for -kernel, built if need be; skips the test where that cannot be.

    `full`: Debian's kernel for all machines, larger and slower, which has AHCI and the 9p file system, which the cloud kernel lacks.
    """
    _need("qemu-system-x86_64", "apt-get", "dpkg-deb", "lz4", "strip")
    folder = _built("full" if full else "direct", lambda into: _build_direct(into, full=full))
    return Direct(folder / "vmlinux", folder / "initrd")


def uefi() -> Uefi:
    """The Linux guest on a UEFI disk, built if need be; skips the test where that cannot be."""
    kernel = direct()
    _need("objcopy", "mformat", "mmd", "mcopy")
    if not OVMF.exists():
        pytest.skip(f"UEFI Linux guest: {OVMF} is missing (package ovmf)")
    folder = _built("uefi", lambda into: _build_uefi(kernel, into))
    return Uefi(folder / "disk.img")


def installer() -> Path:
    """A CD that boots Linux by GRUB, built if need be; skips the test where that cannot be."""
    kernel = direct()
    _need("grub-mkimage", "xorriso")
    if not GRUB_MODULES.is_dir():
        pytest.skip(f"installer CD: {GRUB_MODULES} is missing (package grub-pc-bin)")
    return _built("cd", lambda into: _build_cd(kernel, into)) / "installer.iso"


def _need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"Linux guest: missing {', '.join(missing)}")


def _built(kind: str, build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills, from the cache if these very sources filled it before."""
    sources = Path(__file__).read_bytes() + Path(initramfs.__file__).read_bytes() + guest512.BOOT_SECTOR
    recipe = hashlib.sha256(sources).hexdigest()[:12]
    default = Path.home() / ".cache/bhyved-tests"
    folder = Path(os.environ.get("BHYVED_TEST_CACHE", default)) / f"linux-{kind}-{recipe}"
    with _locked(folder.with_suffix(".lock")):  # the workers of xdist share one build
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as scratch:
                into = Path(scratch, "guest")
                into.mkdir()
                try:
                    build(into)
                except (UnavailableError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as why:
                    pytest.skip(f"Linux guest: cannot be built: {why}{_words_of(why)}")
                into.rename(folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _words_of(failure: Exception) -> str:
    text = failure.stderr if isinstance(failure, subprocess.CalledProcessError) else None
    return ": " + text.decode(errors="replace").strip() if text else ""


def _build_direct(into: Path, *, full: bool) -> None:
    scratch = into.parent
    name = _kernel("linux-image-amd64" if full else "linux-image-cloud-amd64")
    discs = initramfs.CD_MODULES if full else ("cdrom", "isofs")
    wanted = (*initramfs.MODULES, *initramfs.OPTIONAL_MODULES, *discs, *(initramfs.SHARE_MODULES if full else ()))
    tree = _unpacked(name, scratch, ("/vmlinuz-" + name.removeprefix("linux-image-"), *(f"/{module}.ko" for module in wanted)))
    (bzimage,) = (tree / "boot").iterdir()
    shutil.copy(bzimage, into / "bzImage")
    _unpack_kernel(bzimage, into / "vmlinux")
    modules = {module: _module(tree / "lib/modules", module) for module in wanted}
    busybox = _unpacked("busybox-static", scratch) / "bin/busybox"
    applets = _run(str(busybox), "--list-full").decode().split()
    archive = initramfs.newc(initramfs.entries(busybox.read_bytes(), applets, modules))
    (into / "initrd").write_bytes(archive)


def _kernel(meta: str) -> str:
    """The real name behind one of Debian's meta packages, which changes with each kernel update."""
    lines = _run("apt-cache", "depends", meta).decode().splitlines()
    for line in lines:
        if line.strip().startswith("Depends: linux-image-"):
            return line.split()[-1]
    raise UnavailableError(f"apt knows no {meta}; run apt-get update")


def _unpacked(package: str, scratch: Path, wanted: tuple[str, ...] = ("",)) -> Path:
    """The files of a package whose names end so; of a kernel's four thousand modules only those."""
    # Root's apt would drop to the user _apt, who may not write here.
    _run("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, cwd=scratch, timeout=DOWNLOAD_S)
    (deb,) = scratch.glob(f"{package}_*.deb")
    tree = scratch / package
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as files,
    ):
        for file in files:
            if file.isfile() and file.name.endswith(wanted):
                files.extract(file, tree, filter="data")
    return tree


def _unpack_kernel(bzimage: Path, vmlinux: Path) -> None:
    """An unpacked kernel boots by PVH, which spares the guest the unpacking."""
    payload = initramfs.unpacked_kernel(bzimage.read_bytes())
    if payload.startswith(b"\xfd7zXZ"):
        vmlinux.write_bytes(lzma.LZMADecompressor().decompress(payload))
    else:
        packed = vmlinux.with_suffix(".lz4")
        # The last four bytes are the kernel build's own, the unpacked size; lz4 would stumble over them.
        packed.write_bytes(payload[:-4])
        _run("lz4", "-d", "-f", "-q", str(packed), str(vmlinux))
        packed.unlink()
    _run("strip", str(vmlinux))


def _module(folder: Path, name: str) -> bytes:
    for path in folder.rglob(f"{name}.ko"):
        return path.read_bytes()
    raise UnavailableError(f"the kernel has no module {name}")


def _build_cd(kernel: Direct, into: Path) -> None:
    """GRUB without menu or prompt, as an installer's: El Torito, no emulation."""
    scratch = into.parent
    tree = scratch / "cd"
    tree.mkdir()
    for file in (kernel.kernel.with_name("bzImage"), kernel.initrd):
        (tree / file.name).symlink_to(file)
    system = (guest512.BOOT_SECTOR + BOOTS_SO_FAR.to_bytes(2, "little")).ljust(1024, b"\0")
    folder = initramfs.Entry("install", stat.S_IFDIR | 0o755)
    (tree / "system.cpio").write_bytes(initramfs.newc([folder, initramfs.Entry(SYSTEM[1:], stat.S_IFREG | 0o644, system)]))
    config = scratch / "grub.cfg"
    config.write_text(_GRUB_CFG)
    modules = ("biosdisk", "iso9660", "serial", "terminal", "linux", "echo")
    core = tree / "eltorito.img"
    _run("grub-mkimage", "-O", "i386-pc-eltorito", "-d", str(GRUB_MODULES), "-p", "/", "-c", str(config), "-o", str(core), *modules)
    boot = ("-b", core.name, "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
    _run("xorriso", "-as", "mkisofs", "-quiet", "-f", "-R", *boot, "-o", str(into / "installer.iso"), str(tree))


def _build_uefi(kernel: Direct, into: Path) -> None:
    scratch = into.parent
    stub = _unpacked("systemd-boot-efi", scratch) / "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
    cmdline, osrel = scratch / "cmdline", scratch / "osrel"
    cmdline.write_text(kernel.cmdline)
    osrel.write_text("ID=linux\n")
    image = scratch / "BOOTX64.EFI"
    sections = (
        (".osrel", osrel, 0x20000),
        (".cmdline", cmdline, 0x30000),
        (".linux", kernel.kernel.with_name("bzImage"), 0x2000000),
        (".initrd", kernel.initrd, 0x3000000),
    )
    words = [word for name, path, at in sections for word in (f"--add-section={name}={path}", f"--change-section-vma={name}={at:#x}")]
    _run("objcopy", *words, str(stub), str(image))
    disk = into / "disk.img"
    with disk.open("wb") as empty:
        empty.truncate(FAT_BYTES)
    _run("mformat", "-i", str(disk), "-F", "::")
    _run("mmd", "-i", str(disk), "::/EFI", "::/EFI/BOOT")
    _run("mcopy", "-i", str(disk), str(image), "::/EFI/BOOT/BOOTX64.EFI")


def _run(*argv: str, cwd: Path | None = None, timeout: float = TOOL_S) -> bytes:
    return subprocess.run(argv, cwd=cwd, timeout=timeout, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
