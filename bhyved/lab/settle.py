"""The configuration of a lab's daemon: DIR/etc/bhyved.toml, written at each start, and guests to begin with.

The daemon reads it as any other; it is what tells it that its host is in a directory.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from bhyved.lab import guest512, layout

# Behind the lab's own come the machine's: swtpm, truncate and the operator's own commands are the real ones.
_BIN = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_TEMPLATES = (Path(__file__).parents[2] / "etc" / "template.d", Path(__file__).parent / "template.d")  # of the sources, of a wheel
_ANY_PORT = "127.0.0.1:0"
_TEXT = "# Written by `bhyved lab`: [paths] at each start, the rest is yours.\n\n"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line asks for; None: as it was, or else the default."""

    vm_dir: Path | None = None
    config: Path | None = None
    metrics: str | None = None


def write(root: Path, wanted: Wanted) -> None:
    """Write the daemon's main file. Raises OSError, tomllib.TOMLDecodeError."""
    path = root / "etc" / "bhyved.toml"
    if wanted.config is not None:
        main = _beside(wanted.config)
    elif path.exists():
        main = tomllib.loads(path.read_text(encoding="utf-8"))
    else:
        main = {"start-gap": "0s"}  # nothing here is slow to start
    _place(main, root, wanted)
    main.setdefault("log", {}).setdefault("to", "stderr")
    metrics = main.setdefault("metrics", {})
    defaults = {"simulated": _ANY_PORT, "real": f"unix:{root}/run/metrics.sock"}
    if wanted.metrics is not None:
        metrics["listen"] = wanted.metrics
    elif metrics.get("listen") in (None, *defaults.values()):
        # A namespace of its own has a 127.0.0.1 of its own: nobody outside would get there.
        metrics["listen"] = defaults[layout.network(root)]
    _write(path, _TEXT + tomli_w.dumps(main))


def _beside(config: Path) -> dict[str, Any]:
    """Somebody's main file, with the directories beside it named, as the copy will lie elsewhere."""
    main = tomllib.loads(config.read_text(encoding="utf-8"))
    paths = main.setdefault("paths", {})
    for key, name in (("vm-dir", "vm.d"), ("template-dir", "template.d")):
        directory = config.resolve().parent / name
        if directory.is_dir():
            paths.setdefault(key, str(directory))
    return main


def _place(main: dict[str, Any], root: Path, wanted: Wanted) -> None:
    paths = main.setdefault("paths", {})
    paths.update({name: str(root / name) for name in ("run", "db", "log", "dev")})
    paths["bin"] = [str(root / "bin"), *_BIN]
    if wanted.vm_dir is not None:
        paths["vm-dir"] = str(wanted.vm_dir)
        templates = wanted.vm_dir.parent / "template.d"
        if templates.is_dir():
            paths["template-dir"] = str(templates)


def has_metrics(root: Path) -> bool:
    """Whether the daemon is to serve metrics."""
    return bool(_main(root)["metrics"]["listen"])


def _main(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "etc" / "bhyved.toml").read_text(encoding="utf-8"))


def add_templates(root: Path) -> None:
    """Those that come with bhyved, where a new lab has none. Raises OSError."""
    ours = root / "etc" / "template.d"
    if "template-dir" in _main(root)["paths"] or any(ours.iterdir()):
        return
    for template in next((found for directory in _TEMPLATES if (found := sorted(directory.glob("*.toml")))), []):
        _write(ours / template.name, template.read_text(encoding="utf-8"))


def add_samples(root: Path, engine: str) -> None:
    """Two small guests, where a new lab has none. Raises OSError."""
    ours = root / "etc" / "vm.d"
    if "vm-dir" in _main(root)["paths"] or any(ours.iterdir()):
        return
    for name, text in _SAMPLES.items():
        disk = root / "db" / "disk" / f"{name}.img"
        if engine == "qemu":
            disk.parent.mkdir(exist_ok=True)
            if not disk.exists():
                guest512.make_disk(disk)
            text += _REAL.format(disk=disk)
        _write(ours / f"{name}.toml", text)


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)  # whatever the umask: files that a group may write are refused
    fresh.rename(path)


_SAMPLES = {
    "db1": """\
# A guest of the lab. Try: vmctl list; vmctl console db1 (leave with Return ~ .); vmctl stop db1
memory = "16M"
owner = []

[[network]]
bridge = "bridge0"
""",
    "web1": """\
# Starts when db1 is ready, and answers the power button slowly.
memory = "16M"

[[network]]
bridge = "bridge0"

[order]
after = ["db1"]
ready = { uptime = "1s" }

[bhyve]
options = { "lab.script" = "boot 0.5s; acpi slow 2s; print web1 login: ; wait" }
""",
}
# SeaBIOS boots the 512-byte guest; UEFI would not, and takes 30 times as long.
_REAL = """
[boot]
loader = "uefi-csm"

[[disk]]
path = "{disk}"
"""
