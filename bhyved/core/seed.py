"""A guest's seed: the files that cloud-init's NoCloud data source and nuageinit(7) read from a volume with the label `cidata`.

Pure: `host.seed` reads what the guest's file names, and makes the image. Two readers are written for, and the older of them is simple:
the YAML parser of FreeBSD 14's nuageinit knows no escapes in quotes and no JSON, and takes `#cloud-config` only as a whole line. Sources:
cloud-init's documentation (NoCloud, network configuration version 2), libexec/nuageinit of freebsd-src.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from bhyved.core.cloudinit import CloudInit, CloudNetwork, is_public_key
from bhyved.core.exits import ExitKind
from bhyved.core.spec import VmSpec

LABEL = "cidata"
VERSION = "1"  # of what is made of the same contents: another one has every image made anew
_MARK = "bhyved-seed"  # the file that says what the image was made of

_MARKED = re.compile(rb"bhyved-seed ([0-9a-f]{32})\n")

_HEADER = "#cloud-config\n"
#: How user data may begin: cloudinit/handlers (INCLUSION_TYPES_MAP), a MIME archive, or something gzipped.
_BEGINNINGS = ("#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "## template:", "content-type:", "mime-version:")
_GZIP = b"\x1f\x8b"
_HASH = re.compile(r"\$[0-9a-z]+\$[./0-9A-Za-z$=,-]+")  # crypt(3)
#: What needs no quotes, for either parser: the older takes a word such as `yes` at the beginning for all there is.
_PLAIN = re.compile(r"(?!(true|yes|on|false|no|off|null|enabled|disabled)\b)[A-Za-z/][^:#]*[^:#\s]", re.IGNORECASE)
_CLEAN_ENDS = (ExitKind.REBOOT, ExitKind.POWEROFF, ExitKind.HALT)

Files = Mapping[str, bytes]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the files that `[cloud-init]` names. None: it names none."""

    keys: tuple[str, ...] = ()  # all of them, those that stand in the guest's file too
    password_hash: str = ""
    user_data: bytes | None = None
    meta_data: bytes | None = None
    network_config: bytes | None = None


def files(spec: VmSpec, contents: Contents, macs: Mapping[str, str], cards: tuple[str, ...]) -> dict[str, bytes]:
    """The seed of a guest with `[cloud-init]`. `macs`: of each card, by its identity; `cards`: the identities in the order of the file."""
    table = spec.cloud_init
    assert table is not None
    made = {
        "meta-data": contents.meta_data if contents.meta_data is not None else _meta_data(spec, table),
        "user-data": contents.user_data if contents.user_data is not None else _user_data(table, contents),
    }
    if contents.network_config is not None:
        made["network-config"] = contents.network_config
    elif table.network:
        made["network-config"] = _network_config(table, [macs[identity] for identity in cards])
    return made


def makefs(path: str, directory: str) -> tuple[str, ...]:
    """The command that makes an image of a directory (makefs(8), of the base system)."""
    return "makefs", "-t", "cd9660", "-o", f"rockridge,label={LABEL}", path, directory


def fingerprint(seed: Files) -> str:
    """Short and stable: two seeds with one fingerprint are the same."""
    found = hashlib.sha256(VERSION.encode())
    for name in sorted(seed):
        found.update(f"\n{name} {len(seed[name])}\n".encode() + seed[name])
    return found.hexdigest()[:32]


def marked(seed: Files) -> dict[str, bytes]:
    """The seed with its fingerprint in a file of its own: so an image tells by itself whether it is of this seed."""
    return {**seed, _MARK: _mark(fingerprint(seed))}


def fingerprint_in(image: bytes) -> str:
    """Of which seed an image was made; '' when that cannot be told."""
    match = _MARKED.search(image)
    return match[1].decode() if match else ""


def _mark(of: str) -> bytes:
    return f"{_MARK} {of}\n".encode()


def was_set_up(kind: ExitKind, *, forced: bool) -> bool:
    """Whether a run that nobody could ask for readiness has had its seed applied, by its end: the guest itself has ended it, in order."""
    return kind in _CLEAN_ENDS and not forced


def described(table: CloudInit, hidden: str) -> Contents:
    """The contents for people who only want to see what would be made: files by their names, the password as `hidden`."""

    def named(path: str | None) -> bytes | None:
        return None if path is None else f"({path}, as it is)\n".encode()

    return Contents(
        keys=tuple(f"(each key in {key})" if key.is_file else key for key in table.ssh_keys),
        password_hash=hidden if table.password_hash_file is not None else "",
        user_data=named(table.user_data),
        meta_data=named(table.meta_data),
        network_config=named(table.network_config),
    )


# --- what is wrong with a file ----------------------------------------------------------------------------------------------------


def user_data_problem(data: bytes) -> str:
    """Why cloud-init would make nothing of it; '' when it would."""
    if data.startswith(_GZIP):
        return ""
    first = data.partition(b"\n")[0].decode(errors="replace")
    if first.lower().startswith(_BEGINNINGS):
        return ""
    if not data.strip():
        return 'is empty; it begins with the line "#cloud-config", or with "#!" as a script'
    return f'must begin with the line "#cloud-config", or with "#!" as a script; it begins with {first[:40]!r}'


def keys_in(text: str) -> tuple[tuple[str, ...], str]:
    """The public keys of a file, one a line, and what is wrong with it."""
    if "PRIVATE KEY" in text:
        return (), "is a private key: a guest gets the public one, which is in the file beside it that ends in .pub"
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            if not is_public_key(line):
                return (), f'line {number} is no public key such as "ssh-ed25519 AAAA… alice"'
            keys.append(line)
    return tuple(keys), "" if keys else "has no public key"


def hash_in(text: str) -> tuple[str, str]:
    """The first line of a file, and why it is no hash of a password."""
    line = text.partition("\n")[0].strip()
    if _HASH.fullmatch(line):
        return line, ""
    return "", "must begin with a line that is the hash of a password, as `openssl passwd -6` prints it"


# --- the files --------------------------------------------------------------------------------------------------------------------


def host_name(name: str) -> str:
    """What a guest is called that has not been given another name: its own, as far as a host may be called so."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", name).rstrip(".-")


def _meta_data(spec: VmSpec, table: CloudInit) -> bytes:
    return _yaml({"instance-id": str(table.instance_id or spec.name), "local-hostname": str(table.hostname or host_name(spec.name))})


def _user_data(table: CloudInit, contents: Contents) -> bytes:
    data: dict[str, Any] = {}
    if table.user is None:
        if contents.keys:
            data["ssh_authorized_keys"] = list(contents.keys)
    else:
        data["users"] = [_user(table, contents)]
    if table.packages:
        data |= {"package_update": True, "packages": list(table.packages)}
    if table.run:
        data["runcmd"] = list(table.run)
    return _HEADER.encode() + _yaml(data)


def _user(table: CloudInit, contents: Contents) -> dict[str, Any]:
    user: dict[str, Any] = {"name": str(table.user)}
    if table.groups:
        user["groups"] = ",".join(table.groups)  # which all versions of both readers take
    if table.sudo:
        user["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
    if contents.password_hash:
        user |= {"lock_passwd": False, "passwd": contents.password_hash}
    if contents.keys:
        user["ssh_authorized_keys"] = list(contents.keys)
    return user


def _network_config(table: CloudInit, macs: list[str]) -> bytes:
    cards = {f"card{index}": _card(card, macs[index]) for index, card in enumerate(table.network)}
    return _yaml({"version": 2, "ethernets": cards})


def _card(card: CloudNetwork, mac: str) -> dict[str, Any]:
    """By MAC address, since the guest names its cards itself. `gateway4` and not `routes`, which nuageinit does not know."""
    data: dict[str, Any] = {"match": {"macaddress": mac}}
    if card.wants_dhcp:
        data["dhcp4"] = True
    if card.addresses:
        data["addresses"] = list(card.addresses)
    data |= {f"gateway{gateway.version}": str(gateway) for gateway in card.gateways}
    if card.search or card.nameservers:
        lists = {"search": list(card.search), "addresses": list(card.nameservers)}
        data["nameservers"] = {key: value for key, value in lists.items() if value}
    return data


def _yaml(data: Mapping[str, Any]) -> bytes:
    return "".join(f"{line}\n" for line in _lines(data)).encode()


def _lines(data: Any) -> list[str]:
    """Block style, two blanks a level."""
    lines: list[str] = []
    if isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(value, Mapping | list):
                lines += [f"{key}:", *(f"  {line}" for line in _lines(value))]
            else:
                lines.append(f"{key}: {_scalar(value)}")
        return lines
    for item in data:
        first, *rest = _lines(item) if isinstance(item, Mapping) else [_scalar(item)]
        lines += [f"- {first}", *(f"  {line}" for line in rest)]
    return lines


def _scalar(value: str | int | bool) -> str:
    """As both parsers read it alike, wherever there is such a way: nuageinit's of FreeBSD 14 ends a text at the next quote."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if '"' not in value and "\\" not in value:
        return f'"{value}"'
    if "'" in value and _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("'", "''") + "'"
