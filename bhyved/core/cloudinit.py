"""`[cloud-init]`: what a guest is told about itself at its first boot, as its file says it. What becomes of it is `seed`'s.

The short keys are those that cloud-init on Linux and nuageinit(7) on FreeBSD both understand; whoever wants more has a file of his own.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Literal, Self

from bhyved.core.table import Rule, Table
from bhyved.core.values import AbsPath, Line, Slot

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_HOST_CHARS = 253
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")  # what useradd(8) and pw(8) both take
#: Options, the type, the key itself, which begins with the length of its type's name; a comment (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
_KEY = re.compile(r"(\S.*\s)?(sk-)?(ssh|ecdsa)-[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+={0,2}(\s.*)?")


class Words(Line):
    """A line that YAML can carry as it is."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text.isprintable():
            raise ValueError("must be one line of printable characters")
        return super().parse(text)


class HostName(Line):
    """A host's name, with or without its domain."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _HOST.fullmatch(text) or len(text) > _HOST_CHARS:
            raise ValueError('must be the name of a host: letters, digits and "-", in parts of at most 63 characters, joined by dots')
        return cls(text)


class UserName(Line):
    """An account's or a group's name."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not _USER.fullmatch(text):
            raise ValueError('must be the name of an account: a letter, then letters, digits, "_", "." and "-", at most 32 characters')
        return cls(text)


class Keys(Words):
    """One public key, or the file that has some."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text.startswith("/") and not is_public_key(text):
            raise ValueError('must be a public key, such as "ssh-ed25519 AAAA… alice", or the absolute path of a file with public keys')
        return super().parse(text)

    @property
    def is_file(self) -> bool:
        return self.startswith("/")


class IpAddress(Line):
    """An IPv4 or IPv6 address."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(str(ip_address(text)))
        except ValueError:
            raise ValueError('must be an address, such as "192.0.2.1" or "2001:db8::1"') from None

    @property
    def version(self) -> int:
        return ip_address(self).version


class Cidr(Line):
    """An address and the length of its network's prefix."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            if not re.fullmatch(r"[^/]+/[0-9]{1,3}", text):
                raise ValueError
            return cls(ip_interface(text).with_prefixlen)
        except ValueError:
            raise ValueError('must be an address with the length of its prefix, such as "192.0.2.10/24" or "2001:db8::10/64"') from None

    @property
    def version(self) -> int:
        return ip_interface(self).version


def is_public_key(text: str) -> bool:
    """Whether it is a line that sshd would take for a key."""
    return text.isprintable() and _KEY.fullmatch(text) is not None


class CloudNetwork(Table, frozen=True, kw_only=True):
    """`[[cloud-init.network]]`: how the guest sets up one of its cards; the first is for the first `[[network]]`."""

    dhcp: bool | None = None  # None: where there are no addresses
    addresses: tuple[Cidr, ...] = ()
    gateways: tuple[IpAddress, ...] = ()
    nameservers: tuple[IpAddress, ...] = ()
    search: tuple[HostName, ...] = ()

    @property
    def wants_dhcp(self) -> bool:
        return not self.addresses if self.dhcp is None else self.dhcp

    def rules(self) -> Iterator[Rule]:
        if self.dhcp and self.addresses:
            yield "dhcp", "a card has its addresses from DHCP or from addresses, not both"
        versions: list[int] = []
        for index, gateway in enumerate(self.gateways):
            if gateway.version in versions:
                yield f"gateways[{index}]", f"is a second gateway for IPv{gateway.version}, and one is possible"
            elif not any(address.version == gateway.version for address in self.addresses):
                yield f"gateways[{index}]", f"is of no use without an IPv{gateway.version} address in addresses"
            versions.append(gateway.version)


class CloudInit(Table, frozen=True, kw_only=True):
    """`[cloud-init]`: the seed of cloud-init's NoCloud data source, made by bhyved before each run."""

    when: Literal["always", "first"] = "always"
    model: Literal["ahci-cd", "virtio-blk"] = "ahci-cd"
    slot: Slot | None = None
    hostname: HostName | None = None  # None: the guest's name
    instance_id: Words | None = None  # None: the guest's name
    user: UserName | None = None  # None: the image's own default user
    groups: tuple[UserName, ...] = ()
    sudo: bool = True
    ssh_keys: tuple[Keys, ...] = ()
    password_hash_file: AbsPath | None = None
    packages: tuple[Words, ...] = ()
    run: tuple[Words, ...] = ()
    network: tuple[CloudNetwork, ...] = ()
    user_data: AbsPath | None = None
    meta_data: AbsPath | None = None
    network_config: AbsPath | None = None

    def rules(self) -> Iterator[Rule]:
        given = {
            "user": self.user is not None,
            "groups": bool(self.groups),
            "sudo": not self.sudo,
            "ssh-keys": bool(self.ssh_keys),
            "password-hash-file": self.password_hash_file is not None,
            "packages": bool(self.packages),
            "run": bool(self.run),
        }
        if self.user_data is not None:
            yield from ((key, "stands in the file that user-data names, or here, not both") for key in given if given[key])
        elif self.user is None:
            for key in ("groups", "sudo", "password-hash-file"):
                if given[key]:
                    yield key, "needs user: what the image's default user is called is not known"
        if self.meta_data is not None:
            for key, value in (("hostname", self.hostname), ("instance-id", self.instance_id)):
                if value is not None:
                    yield key, "stands in the file that meta-data names, or here, not both"
        if self.network_config is not None and self.network:
            yield "network", "stands in the file that network-config names, or here, not both"
