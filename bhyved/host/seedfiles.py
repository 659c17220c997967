"""The files that a guest's `[cloud-init]` names: read for its seed, and judged before that by `check`.

Blocking, and no trio: `vmctl check` needs no daemon.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from bhyved.core.cloudinit import CloudInit
from bhyved.core.config import Problem, Source
from bhyved.core.decode import shown, split_key
from bhyved.core.seed import Contents, hash_in, keys_in, user_data_problem
from bhyved.core.spec import VmSpec
from bhyved.core.tomllines import line_of, lines_of
from bhyved.host.ownedfile import read_owned, text_of, why_unread

T = TypeVar("T")


class Fault(NamedTuple):
    """What is wrong with a file that `[cloud-init]` names: the key in the table, the file, the rest of a sentence that begins with it."""

    key: str
    path: str
    sentence: str
    is_missing: bool = False

    def __str__(self) -> str:
        return f"cloud-init.{self.key}: {self.path} {self.sentence}"


def look(table: CloudInit) -> tuple[Contents, tuple[Fault, ...]]:
    """Everything that it names, read, and all that is wrong with it. Blocks."""
    reading = _Reading()
    keys: list[str] = []
    for index, key in enumerate(table.ssh_keys):
        keys += (reading.of(f"ssh-keys[{index}]", key, _keys) or ()) if key.is_file else (str(key),)
    contents = Contents(
        keys=tuple(dict.fromkeys(keys)),
        password_hash=reading.of("password-hash-file", table.password_hash_file, _hash, secret=True) or "",
        user_data=reading.of("user-data", table.user_data, _user_data),
        meta_data=reading.of("meta-data", table.meta_data, _yaml),
        network_config=reading.of("network-config", table.network_config, _yaml),
    )
    return contents, tuple(reading.faults)


def problems(guests: Mapping[str, Source], vms: Mapping[str, VmSpec]) -> Iterator[Problem]:
    """All that is wrong with the files of all guests, each where the guest's own file names it."""
    for name, spec in vms.items():
        if spec.cloud_init is None:
            continue
        source = guests[name]
        for fault in look(spec.cloud_init)[1]:
            key = f"cloud-init.{fault.key}"
            line = line_of(lines_of(source.text), split_key(key))
            yield Problem(file=source.path, key=key, line=line, found=shown(fault.path), sentence=fault.sentence, vms=(name,))


class _Reading:
    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def of(self, key: str, path: str | None, take: Callable[[bytes], T], *, secret: bool = False) -> T | None:
        if path is None:
            return None
        try:
            return take(read_owned(path, secret=secret))
        except (OSError, ValueError) as error:
            self.faults.append(Fault(key, str(path), why_unread(error), isinstance(error, FileNotFoundError)))
            return None


def _keys(data: bytes) -> tuple[str, ...]:
    keys, problem = keys_in(text_of(data))
    if problem:
        raise ValueError(problem)
    return keys


def _hash(data: bytes) -> str:
    found, problem = hash_in(text_of(data))
    if problem:
        raise ValueError(problem)
    return found


def _user_data(data: bytes) -> bytes:
    problem = user_data_problem(data)
    if problem:
        raise ValueError(problem)
    return data


def _yaml(data: bytes) -> bytes:
    if not text_of(data).strip():
        raise ValueError("is empty")
    return data
