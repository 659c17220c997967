"""A guest's seed on disk: the files that its file names, the image, and when a run is given it."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from bhyved.core.cloudinit import CloudInit
from bhyved.core.decode import shown
from bhyved.core.errors import HostError
from bhyved.core.status import VmRecord
from bhyved.core.units import dec_hook
from bhyved.host import configfiles, seedfiles
from bhyved.host import seed as seeds
from bhyved.host.machine import GuestMachine
from bhyved.host.vault import FileVault
from tests.host.onehost import OneHost, guest, order

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK alice"
HASH = "$6$salt$hash"
#: What matters of an image: the descriptor with the label, in capitals as makefs writes it, and the files.
MAKEFS = r"""
{
    head -c 32768 /dev/zero
    printf '\001CD001\001\000%32s%-32s' '' CIDATA
    head -c 1976 /dev/zero
    cat "$6"/*
} >"$5"
ls -ld "$6" "$6"/* "$5" | cut -c1-10 >$HERE/modes
"""


@pytest.fixture
def host(host: OneHost) -> OneHost:
    """With a makefs."""
    host.scripts.write("makefs", f"HERE={host.root}{MAKEFS}")
    return host


def table(**keys: Any) -> CloudInit:
    return msgspec.convert({key.replace("_", "-"): value for key, value in keys.items()}, CloudInit, dec_hook=dec_hook)


def image(host: OneHost, name: str = "web") -> Path:
    return host.db / "cloud-init" / f"{name}.iso"


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def makes(host: OneHost) -> int:
    return sum(call.startswith("makefs ") for call in host.scripts.calls)


# --- the files that are named -----------------------------------------------------------------------------------------------------


def test_files_are_read(tmp_path: Path) -> None:
    """Keys of files and of the guest's own file, each once; the first line of the password's; own files as they are."""
    keys = written(tmp_path / "keys", f"# two\n{KEY}\n{KEY}2\n", 0o644)
    contents, faults = seedfiles.look(
        table(ssh_keys=[f"{KEY}2", keys], user="alice", password_hash_file=written(tmp_path / "hash", f"{HASH}\nno more\n"))
    )
    own, none = seedfiles.look(table(user_data=written(tmp_path / "u", "#!/bin/sh\n"), meta_data=written(tmp_path / "m", "a: b\n")))

    assert (faults, none) == ((), ())
    assert contents.keys == (f"{KEY}2", KEY)
    assert contents.password_hash == HASH
    assert (own.user_data, own.meta_data, own.network_config) == (b"#!/bin/sh\n", b"a: b\n", None)


@pytest.mark.parametrize(
    ("key", "text", "mode", "said"),
    [
        ("user_data", "users: []\n", 0o600, 'must begin with the line "#cloud-config"'),
        ("user_data", "#cloud-config\n", 0o666, "may be written by anybody; take that away with chmod go-w"),
        ("meta_data", "\n", 0o600, "is empty"),
        ("network_config", "\ufeffversion: 2\n", 0o600, "begins with a byte order mark"),
        ("password_hash_file", f"{HASH}\n", 0o644, "is open to everybody: chmod 600 it"),
        ("password_hash_file", "secret\n", 0o600, "must begin with a line that is the hash of a password"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, key: str, text: str, mode: int, said: str) -> None:
    """The key, the file and the reason; nothing of what is in it."""
    path = written(tmp_path / "file", text, mode)
    user = {"user": "alice"} if key == "password_hash_file" else {}
    _, (fault,) = seedfiles.look(table(**{key: path}, **user))

    assert str(fault).startswith(f"cloud-init.{key.replace('_', '-')}: {path} {said}")
    assert not fault.is_missing
    assert "secret" not in str(fault)


def test_check_looks_at_every_file(tmp_path: Path) -> None:
    """All problems of all guests at once, each on the line of the guest's file that names the file."""
    (tmp_path / "vm.d").mkdir(mode=0o755)
    main = tmp_path / "bhyved.toml"
    main.touch(0o644)
    bad = written(tmp_path / "bad", "hello\n")
    written(tmp_path / "vm.d/a.toml", f'[cloud-init]\nssh-keys = [\n"{KEY}",\n"{bad}",\n"/none"]\n', 0o644)
    written(tmp_path / "vm.d/b.toml", f'[cloud-init]\nuser-data = "{bad}"\n', 0o644)
    loaded = configfiles.read(str(main)).loaded

    assert [str(problem).removeprefix(f"{tmp_path}/vm.d/") for problem in loaded.problems] == [
        f'a.toml:2: cloud-init.ssh-keys[1]: found {shown(bad)}; line 1 is no public key such as "ssh-ed25519 AAAA… alice"',
        'a.toml:2: cloud-init.ssh-keys[2]: found "/none"; does not exist',
        f'b.toml:2: cloud-init.user-data: found {shown(bad)}; must begin with the line "#cloud-config", or with "#!" as a script; '
        "it begins with 'hello'",
    ]


# --- the image --------------------------------------------------------------------------------------------------------------------


async def test_an_image_is_made_and_attached(host: OneHost, machine: GuestMachine) -> None:
    """With the label in small letters, private from its first byte, and nothing left of what it was made of."""
    prepared = await machine.prepare(order(guest(**{"cloud-init": {"ssh-keys": [KEY]}})))
    data = image(host).read_bytes()

    assert data[32768 + 40 : 32768 + 72] == b"cidata".ljust(32)
    assert f'ssh_authorized_keys:\n  - "{KEY}"\n'.encode() in data
    assert stat.S_IMODE(image(host).stat().st_mode) == 0o600
    assert set((host.root / "modes").read_text().split()) == {"drwx------", "-rw-------"}
    assert os.listdir(image(host).parent) == ["web.iso"]
    assert not (host.directory() / "seed").exists()
    assert f"pci.0.27.0.port.0.path={image(host)}\n" in (host.directory() / "bhyve.conf").read_text()
    assert prepared.slots["cloud-init"] == "0:27:0"
    ledger = machine._ledger
    assert ledger is not None
    assert ledger.seed == prepared.seed != ""


async def test_an_image_is_made_anew_only_when_something_has_changed(host: OneHost, machine: GuestMachine, tmp_path: Path) -> None:
    """In the guest's file or in a file that it names; a damaged image counts as none."""
    keys = written(tmp_path / "keys", KEY)
    spec = guest(**{"cloud-init": {"ssh-keys": [keys]}})
    for _ in range(2):
        await machine.prepare(order(spec))
    assert makes(host) == 1

    written(tmp_path / "keys", f"{KEY}2")
    changed = await machine.prepare(order(spec))
    assert makes(host) == 2
    assert f"{KEY}2".encode() in image(host).read_bytes()

    image(host).write_bytes(b"")
    again = await machine.prepare(order(spec))
    assert makes(host) == 3
    assert again.seed == changed.seed


async def test_makefs_itself_makes_it(host: OneHost, machine: GuestMachine, tmp_path: Path) -> None:
    """makefs(8), as NetBSD has it and FreeBSD took it from there: any reader finds the files under their own names."""
    real = shutil.which("makefs", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if real is None or shutil.which("xorriso") is None:
        pytest.skip("makefs and xorriso are not installed")
    host.scripts.write("makefs", f'exec {real} "$@"')
    await machine.prepare(order(guest(**{"cloud-init": {"ssh-keys": [KEY]}})))
    out = tmp_path / "out"
    words = ["xorriso", "-osirrox", "on", "-indev", str(image(host)), "-extract", "/", str(out)]
    await trio.run_process(words, capture_stdout=True, capture_stderr=True)

    assert sorted(os.listdir(out)) == ["bhyved-seed", "meta-data", "user-data"]
    assert (out / "meta-data").read_text() == 'instance-id: "web"\nlocal-hostname: "web"\n'
    assert (out / "user-data").stat().st_mode & 0o777 == 0o600
    assert image(host).read_bytes()[32768 + 40 : 32768 + 72] == b"cidata".ljust(32)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo makefs: no space left >&2; exit 1", "makefs: no space left"),
        (": >$5", "what makefs made is no ISO 9660 image with the label cidata"),
    ],
)
async def test_a_makefs_that_fails_leaves_nothing(host: OneHost, machine: GuestMachine, script: str, said: str) -> None:
    """The start fails with its words; the image of before stays, if there was one."""
    await machine.prepare(order(guest(**{"cloud-init": {}})))
    before = image(host).read_bytes()
    host.scripts.write("makefs", script)
    with pytest.raises(HostError, match=said):
        await machine.prepare(order(guest(**{"cloud-init": {"run": ["true"]}})))

    assert image(host).read_bytes() == before
    assert os.listdir(image(host).parent) == ["web.iso"]
    assert not (host.directory() / "seed").exists()


async def test_without_makefs_the_start_says_so(host: OneHost, machine: GuestMachine) -> None:
    """The directories that were searched are named."""
    (host.scripts.bin / "makefs").unlink()
    with pytest.raises(HostError, match=r"^makefs was not found in "):
        await machine.prepare(order(guest(**{"cloud-init": {}})))


async def test_a_guest_that_has_been_set_up_with_its_seed_is_not_given_it_again(host: OneHost, machine: GuestMachine) -> None:
    """`when = "first"`: no drive and no image any more, until what is in the seed changes; `always` gives it always."""
    first, changed = ({"when": "first", "run": [command]} for command in ("true", "false"))
    seed = (await machine.prepare(order(guest(**{"cloud-init": first})))).seed
    record = VmRecord(seed=seed)

    gone = await machine.prepare(order(guest(**{"cloud-init": first}), record=record))
    assert (gone.seed, image(host).exists()) == ("", False)
    assert "cloud-init" not in (host.directory() / "bhyve.conf").read_text()

    again = await machine.prepare(order(guest(**{"cloud-init": changed}), record=record))
    assert again.seed not in ("", seed)
    assert image(host).exists()
    always = await machine.prepare(order(guest(**{"cloud-init": first | {"when": "always"}}), record=record))
    assert always.seed == seed


@pytest.mark.parametrize(("text", "is_fatal"), [(None, False), ("hello\n", True)], ids=["missing", "wrong"])
async def test_a_file_that_cannot_be_used_keeps_a_new_guest_down(
    host: OneHost, machine: GuestMachine, tmp_path: Path, text: str | None, is_fatal: bool
) -> None:
    """One that is not there may come, as a disk may; one that is wrong has to be mended."""
    path = str(tmp_path / "user-data") if text is None else written(tmp_path / "user-data", text)
    with pytest.raises(HostError, match=rf"^cloud-init.user-data: {path} ") as refused:
        await machine.prepare(order(guest(**{"cloud-init": {"user-data": path}})))

    assert refused.value.fatal is is_fatal
    assert machine._ledger is None


async def test_a_guest_that_has_its_seed_is_not_kept_down_by_a_file(host: OneHost, machine: GuestMachine, tmp_path: Path) -> None:
    """It reboots with the seed of before, and the event says why; one that is set up needs none."""
    script = tmp_path / "user-data"
    spec = guest(**{"cloud-init": {"when": "first", "user-data": written(script, "#!/bin/sh\n")}})
    seed = (await machine.prepare(order(spec))).seed
    script.unlink()

    again = await machine.prepare(order(spec))
    assert (again.seed, makes(host)) == (seed, 1)
    assert again.warnings[-1] == f"cloud-init.user-data: {script} does not exist; the guest goes on with the seed of before"
    for _ in range(2):  # the first takes the image away
        done = await machine.prepare(order(spec, record=VmRecord(seed=seed)))
        assert (done.seed, image(host).exists()) == ("", False)


async def test_an_image_goes_with_its_table(host: OneHost, machine: GuestMachine) -> None:
    """There may be secrets in it: neither a guest without [cloud-init] nor one that is forgotten leaves it behind."""
    await machine.prepare(order(guest(**{"cloud-init": {}})))
    left = (host.directory() / "seed", image(host).with_name(".new-web.iso"))  # by a daemon that was killed
    left[0].mkdir()
    left[1].touch()
    await machine.prepare(order(guest()))
    assert not any(path.exists() for path in (image(host), *left))

    await machine.prepare(order(guest(**{"cloud-init": {}})))
    await FileVault(f"{host.db}/vm").forget("web")
    assert not image(host).exists()


async def test_the_next_daemon_finds_what_is_left(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image, and what makefs was given by one that was killed meanwhile."""
    await machine.prepare(order(guest(**{"cloud-init": {}})))
    host.die(machine)
    second = host.daemon().machine("web")
    await second.prepare(order(guest()))
    assert not image(host).exists()

    with monkeypatch.context() as context:
        context.setattr(seeds, "run_tool", interrupt)
        context.setattr(seeds, "_clear", lambda *_: None)  # what a kill spares it
        with pytest.raises(RuntimeError):
            await second.prepare(order(guest(**{"cloud-init": {"run": ["echo secret"]}})))
    host.die(second)
    assert "secret" in (host.directory() / "seed/user-data").read_text()
    await host.daemon().machine("web").prepare(order(guest()))
    assert not (host.directory() / "seed").exists()
    assert os.listdir(image(host).parent) == []


async def interrupt(*_: object, **__: object) -> None:
    raise RuntimeError


async def test_a_guest_without_a_seed_costs_the_disk_no_look(host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at its first start nor later, nor once its image has gone."""
    looked: list[str] = []
    await machine.prepare(order(guest()))
    await machine.prepare(order(guest(**{"cloud-init": {}})))
    await machine.prepare(order(guest()))
    for name in ("unlink", "lstat", "stat", "open", "listdir", "scandir"):
        monkeypatch.setattr(os, name, noting(looked, getattr(os, name)))
    await machine.prepare(order(guest()))

    assert f"{host.directory()}/bhyve.conf" in looked
    assert [path for path in looked if "cloud-init" in path or path.endswith("/seed")] == []


def noting(looked: list[str], real: Callable[..., Any]) -> Callable[..., Any]:
    def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
        looked.append(str(path))
        return real(path, *args, **kwargs)

    return noted


async def test_a_file_system_that_is_read_only_keeps_no_guest_down(
    host: OneHost, machine: GuestMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not there need not be removed; an image that stays is told of, and not attached."""
    await machine.prepare(order(guest(**{"cloud-init": {}})))
    unlink = os.unlink

    def refuse(path: str) -> None:
        if str(path).startswith(f"{host.db}/"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # also where there is nothing: the file system does not look
        unlink(path)

    monkeypatch.setattr(os, "unlink", refuse)
    prepared = await machine.prepare(order(guest()))
    assert prepared.warnings == (
        f"the seed of before stays, with what is secret in it: {image(host)} cannot be removed: read-only file system",
    )
    assert prepared.seed == ""

    image(host).rename(host.root / "elsewhere")
    assert (await machine.prepare(order(guest()))).warnings == ()


async def test_an_earlier_daemons_run_tells_which_seed_it_has(host: OneHost, machine: GuestMachine) -> None:
    """From the ledger: its end may come under the next daemon."""
    seed = (await machine.prepare(order(guest(**{"cloud-init": {}})))).seed
    host.die(machine)
    found = host.daemon().machine("web").find()

    assert found is not None
    assert found.seed == seed
