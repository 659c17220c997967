"""What `vmctl import` reads: a file, a directory with one, a dataset of ZFS; and what belongs to it."""

from __future__ import annotations

import os
from typing import NamedTuple, NoReturn

from bhyved.core.errors import in_words
from bhyved.ctl.connection import FAILED, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bhyved.core.imports.bmdvalues import Source
    from bhyved.core.imports.cbsd import Rows
    from bhyved.ctl.newguest import Files

CBSD_DATABASE = "local.sqlite"
_CBSD_FILE = "bhyve.conf"
_LONGEST = 1 << 20
_ZFS_LIMIT_S = 20.0
_SQLITE = b"SQLite format 3\0"


class Found(NamedTuple):
    """`path` is absolute, or the name of a dataset; '' is standard input. `here`: the directory of relative paths in it."""

    path: str
    text: str
    here: str


def find(name: str, files: Callable[[], Files]) -> Found:
    """What the operator names. Raises Failure."""
    if name == "-":
        return Found("", read(name), os.getcwd())
    if "/" in name and name[0] not in "/." and not os.path.lexists(name):
        return Found(name, _properties(name, files), os.getcwd())
    path = os.path.abspath(name)
    if os.path.isdir(path):
        own = (os.path.join(path, file) for file in (f"{os.path.basename(path)}.conf", _CBSD_FILE))
        path = next(filter(os.path.isfile, own), "") or _nothing(path)
    elif _is_database(path):
        path = os.path.join(os.path.dirname(path), _CBSD_FILE)
        if not os.path.isfile(path):
            raise Failure(
                FAILED,
                f"{path} is not there: CBSD writes it when it starts the guest; `cbsd bstart cfg_only=FILE jname=NAME` writes it alone",
            )
    return Found(path, read(path), os.path.dirname(path))


def _nothing(directory: str) -> NoReturn:
    name = os.path.basename(directory)
    raise Failure(FAILED, f"{directory} is a directory with neither {name}.conf of vm-bhyve nor {_CBSD_FILE} of CBSD in it: name a file")


def _is_database(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False  # `read` says why


def read(path: str) -> str:
    """Raises Failure."""

    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise Failure(FAILED, f"{path} cannot be read: {in_words(error)}") from None
    if len(data) > _LONGEST:
        raise Failure(FAILED, f"{path} is larger than any guest's configuration")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Failure(FAILED, f"{path} is no text") from None


def zfs(files: Callable[[], Files], *words: str) -> str:
    """What zfs(8) prints. Raises HostError, Failure."""
    from bhyved.host.toolbox import Tools

    tools = Tools(bin=tuple(map(str, files().paths.bin)))
    return tools.ask(("zfs", *words), limit_s=_ZFS_LIMIT_S).stdout.decode(errors="replace")


def _properties(dataset: str, files: Callable[[], Files]) -> str:
    from bhyved.core.errors import HostError

    try:
        return zfs(files, "get", "-H", "-o", "name,property,value", "all", dataset)
    except HostError as error:
        raise Failure(FAILED, f"{dataset} is no file, and as a dataset: {error}") from None


def source(found: Found) -> Source:
    """A file of bmd's, with its owner: '' for root, and for whoever asks."""
    from bhyved.core.imports.bmdvalues import Source

    return Source(found.path or os.path.join(found.here, "-"), found.text, _owner(found.path) if found.path else "")


def matching(pattern: str) -> Sequence[Source]:
    """The files that a pattern names. Raises Failure."""
    import glob

    paths = [os.path.realpath(path) for path in sorted(glob.glob(pattern)) if os.path.isfile(path)]
    return [source(Found(path, read(path), os.path.dirname(path))) for path in dict.fromkeys(paths)]


def _owner(path: str) -> str:
    import pwd

    try:
        uid = os.stat(path).st_uid
        return "" if uid in (0, os.geteuid()) else pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    except OSError:
        return ""


def rows(path: str, tables: Sequence[str]) -> tuple[Rows | None, str]:
    """The rows of a database, None without one; and why they could not be read, else ''."""
    import sqlite3
    from urllib.parse import quote

    if not os.path.exists(path):
        return None, ""
    found: dict[str, list[dict[str, str]]] = {}
    try:
        connection = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
        try:
            for table in tables:
                known = connection.execute("select 1 from sqlite_master where type = 'table' and name = ?", (table,)).fetchone()
                lines = connection.execute(f"select * from {table}" if known else "select 1 where 0")
                keys = [str(column[0]) for column in lines.description]
                found[table] = [{key: "" if value is None else str(value) for key, value in zip(keys, line, strict=True)} for line in lines]
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return None, f"{path} cannot be read: {error}"
    return found, ""
