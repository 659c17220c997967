"""`cpus` as a table, and `[boot]`: which keys fit together."""

import pytest

from bhyved.core.boot import is_cpu_list
from bhyved.core.config import Source, load


def problems(text: str) -> list[str]:
    loaded = load(Source("bhyved.toml", ""), {"a": Source("a.toml", text)}, {})
    return [str(problem) for problem in loaded.problems]


@pytest.mark.parametrize("text", ["0", "0-3", "2-2", "0-3,6", "1,3,5-9999"])
def test_a_list_of_processors(text: str) -> None:
    """Numbers and ranges, as cpuset(1) takes them."""
    assert is_cpu_list(text)


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "a", "-", "1-", "-1", "3-1", "0,3-1", "1-x", "x-1", "12345", "1-12345", "٣", "1-٣", "٣-5", "1 2", "1-2-3"]
)
def test_what_is_no_list_of_processors(text: str) -> None:
    """Nor is anything that only looks like a number to Python."""
    assert not is_cpu_list(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            'memory = "1G"\ncpus = { cores = 2, numa = [{ cpus = "x", size = "1G" }] }',
            'a.toml:2: cpus.numa[0].cpus: found "x"; must be a list of vCPUs, such as "0-1"',
        ),
        (
            'cpus = { cores = 2, pin = ["x:0"] }',
            'a.toml:1: cpus.pin[0]: found "x:0"; \'x:0\' must be a vCPU and host CPUs, such as "0:2" or "1:4-6"',
        ),
        (
            'cpus = { cores = 2, pin = ["0:x"] }',
            'a.toml:1: cpus.pin[0]: found "0:x"; \'0:x\' must be a vCPU and host CPUs, such as "0:2" or "1:4-6"',
        ),
        (
            'cpus = { cores = 2, pin = ["1:0", "2:0"] }',
            'a.toml:1: cpus.pin[1]: found "2:0"; there is no vCPU 2: this guest has 2, counted from 0',
        ),
        ('[boot]\ntimeout = "0s"', 'a.toml:2: boot.timeout: found "0s"; must be longer than 0s'),
        (
            '[boot]\nloader = "grub"\nfirmware = "/f"',
            'a.toml:3: boot.firmware: found "/f"; loader = "grub" uses no firmware',
        ),
        (
            '[boot]\nloader = "u-boot"\nvars = "/v"',
            'a.toml:3: boot.vars: found "/v"; loader = "u-boot" has no UEFI variables',
        ),
        (
            '[boot]\nkeep-vars = false\nvars = "/v"',
            "a.toml:2: boot.keep-vars: found false; false contradicts vars",
        ),
        (
            '[boot.bhyveload]\nhost-dir = "/d"',
            'a.toml:1: boot.bhyveload: is given, but loader is "uefi"',
        ),
        ('[boot.grub]\nfile = "f"', 'a.toml:1: boot.grub: is given, but loader is "uefi"'),
        (
            '[boot]\nloader = "bhyveload"\n[boot.bhyveload]\nenv = { "a b" = "1" }',
            'a.toml:4: boot.bhyveload.env."a b": found "1"; must be the name of a loader variable, such as autoboot_delay',
        ),
    ],
)
def test_what_does_not_fit_together(text: str, problem: str) -> None:
    """Where it stands, what was found, and what would be right."""
    assert problems(text) == [problem]


@pytest.mark.parametrize(
    "text",
    [
        'cpus = { sockets = 1, cores = 2, threads = 1, pin = ["0:2", "1:4-6"] }',
        'memory = "1G"\ncpus = { cores = 2, numa = [{ cpus = "0-1", size = "1G" }] }',
        '[boot]\ntimeout = "1s"',
        '[boot]\nvars = "/v"',
        '[boot]\nloader = "uefi-csm"\nvars = "/v"\nfirmware = "/f"',
        "[boot]\nkeep-vars = false",
        '[boot]\nloader = "u-boot"\nfirmware = "/f"',
        '[boot]\nloader = "bhyveload"\n[boot.bhyveload]\nenv = { autoboot_delay = 1, "hint.uart.0" = "x" }',
        '[boot]\nloader = "grub"\n[boot.grub]\nfile = "f"',
    ],
)
def test_what_fits_together(text: str) -> None:
    """Each key beside the loader that it is for."""
    assert problems(text) == []
