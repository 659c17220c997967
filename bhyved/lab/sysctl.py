"""The stand-ins of sysctl(8), sysrc(8) and freebsd-version(1): what a host says of itself, by the lab's settings.

    sysctl [-bniq] NAME …          sysctl NAME=VALUE …          sysrc [-n] NAME …          sysrc NAME=VALUE …

Settings override any variable: `sysctl = {"vm.max_user_wired": 1024}` and `rc.conf = {"rcshutdown_timeout": "300"}`.
"""

from __future__ import annotations

import os
import sys

from bhyved.lab import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAGE_BYTES = 4096
MEMORY_BYTES = 1 << 40  # sim guests have none: whoever wants to see guests wait for memory sets `physmem`
_RELEASES = {"14": (1402000, "14.2-RELEASE"), "15": (1500068, "15.0-RELEASE"), "main": (1600010, "16.0-CURRENT")}
_RC_CONF = {"rcshutdown_timeout": "90", "hostname": "lab", "bhyved_enable": "YES"}  # contract 8.5; /etc/defaults/rc.conf
_LONG = ("hw.physmem", "hw.usermem", "vm.max_user_wired", "vm.stats.vm.v_user_wire_count")


def release(settings: dict[str, Any]) -> tuple[int, str]:
    """`__FreeBSD_version` and the name of the release."""
    return _RELEASES[str(settings.get("release", "15"))]


def is_jailed(settings: dict[str, Any]) -> bool:
    """Whether the whole lab is a jail: `sysctl = {"security.jail.jailed": 1}`."""
    return variables(settings)["security.jail.jailed"] == 1


def variables(settings: dict[str, Any]) -> dict[str, int | str | None]:
    """All variables that the lab knows, kern.boot_id (which is neither text nor number) left out. None: may not be read."""
    memory = int(settings.get("physmem") or MEMORY_BYTES)
    number, name = release(settings)
    amd64 = settings.get("arch", "amd64") == "amd64"
    return {
        "kern.ostype": "FreeBSD",
        "kern.osrelease": name,
        "kern.osreldate": number,
        "kern.hostname": "lab",
        "kern.hostuuid": str(settings.get("hostuuid", "00000000-0000-0000-0000-000000000000")),
        "kern.vm_guest": "none",
        "kern.init_shutdown_timeout": 120,
        "kern.racct.enable": 0,
        "hw.machine": "amd64" if amd64 else "arm64",
        "hw.machine_arch": "amd64" if amd64 else "aarch64",
        "hw.ncpu": os.cpu_count() or 1,
        "hw.pagesize": PAGE_BYTES,
        "hw.physmem": memory,
        "hw.usermem": memory,
        "hw.vmm.create": "",  # None in a jail without allow.vmm
        "hw.vmm.maxcpu": int(settings.get("maxcpu", 16)),
        **({"hw.vmm.maxvmms": int(settings.get("maxvmms", 4 * (os.cpu_count() or 1)))} if settings.get("release") == "main" else {}),
        **({"hw.vmm.vmx.initialized": 1} if amd64 else {}),
        **({"hw.vmm.vmx.cap.unrestricted_guest": int(settings.get("unrestricted_guest", True))} if amd64 else {}),
        **({"hw.vmm.amdvi.enable": 0} if amd64 else {}),
        "vm.max_user_wired": memory // PAGE_BYTES // 3,
        "vm.stats.vm.v_user_wire_count": 0,
        "net.link.tap.up_on_open": 0,
        "net.link.tap.user_open": 0,
        "net.link.tap.devfs_cloning": 1,
        "net.link.bridge.pfil_member": 0,
        "net.link.bridge.member_ifaddrs": int(settings.get("release") == "14"),
        "security.jail.jailed": 0,
        "security.jail.vnet": 0,
        **settings.get("sysctl", {}),
    }


def sysctl(root: str, argv: list[str]) -> int:
    letters = "".join(word[1:] for word in argv if word.startswith("-"))
    names = [word for word in argv if not word.startswith("-")]
    if not names or letters.strip("bniqex"):
        print("usage: sysctl [-bdehiNnoqTtWx] name[=value] ...", file=sys.stderr)
        return 1
    settings = state.settings(root)
    known = variables(settings)
    status = 0
    for word in names:
        name, sets, value = word.partition("=")
        if name == "kern.boot_id":
            _show_boot_id(bytes.fromhex(settings["boot_id"]), letters)
        elif name not in known:
            status = 0 if "i" in letters else 1
            if not {"i", "q"} & set(letters):
                print(f"sysctl: unknown oid '{name}'", file=sys.stderr)
        elif sets and is_jailed(settings):
            status = 1
            print(f"sysctl: {word}: Operation not permitted", file=sys.stderr)
        elif sets:
            _set(root, "sysctl", {name: int(value) if isinstance(known[name], int) else value})
            print(f"{known[name]} -> {value}" if "n" in letters else f"{name}: {known[name]} -> {value}")
        elif (value_now := known[name]) is not None:
            _show(name, value_now, letters)
    return status


def _show(name: str, value: int | str, letters: str) -> None:
    if "b" in letters:
        size = 8 if name in _LONG else 4
        raw = value.encode() + b"\0" if isinstance(value, str) else value.to_bytes(size, sys.byteorder, signed=value < 0)
        sys.stdout.buffer.write(raw)
    else:
        print(value if "n" in letters else f"{name}: {value}")


def _show_boot_id(boot_id: bytes, letters: str) -> None:
    """Sixteen opaque bytes: as text there is nothing to say (contract 8.2)."""
    if "b" in letters:
        sys.stdout.buffer.write(boot_id)
    elif "x" in letters:
        print(f"kern.boot_id: Format: Length:{len(boot_id)} Dump:0x{boot_id.hex()}")


def sysrc(root: str, argv: list[str]) -> int:
    letters = "".join(word[1:] for word in argv if word.startswith("-"))
    names = [word for word in argv if not word.startswith("-")]
    if not names or letters.strip("niqe"):
        print("usage: sysrc [OPTIONS] {name[[+|-]=value] ...}", file=sys.stderr)
        return 1
    status = 0
    for word in names:
        name, sets, value = word.partition("=")
        known = {**_RC_CONF, **state.settings(root).get("rc.conf", {})}
        if sets:
            _set(root, "rc.conf", {name: value})
            print(f"{name}: {known.get(name, '')} -> {value}")
        elif name in known:
            print(known[name] if "n" in letters else f"{name}: {known[name]}")
        else:
            status = 1
            if not {"i", "q"} & set(letters):
                print(f"sysrc: unknown variable '{name}'", file=sys.stderr)
    return status


def freebsd_version(root: str, argv: list[str]) -> int:
    """The same for kernel and userland, running or installed."""
    for _ in {letter for word in argv for letter in word.strip("-")} or {"u"}:
        print(release(state.settings(root))[1])
    return 0


def _set(root: str, key: str, news: dict[str, object]) -> None:
    with state.Locked(root, "settings"):
        settings = state.settings(root)
        settings[key] = {**settings.get(key, {}), **news}
        state.write(f"{root}/lab/settings.json", settings)
