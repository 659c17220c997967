"""How bhyve ends, what it leaves, and what it refuses: exit statuses, signals, nodes (contract 1.7 to 1.11, 2.2, 2.4, 8.2, 8.3,
8.10)."""

import os
import shutil
import signal

import trio

from bhyved.core.assigned import UEFI, UEFI_VARS
from bhyved.core.selfcheck import GUEST
from bhyved.host.backing import of_package
from bhyved.host.selftest.bench import Bench, Check, Guest, Wrong
from bhyved.host.selftest.needs import NotHere
from bhyved.host.toolbox import said_by

_ABORTED, _TERMINATED, _KILLED = 134, 143, 137  # a shell's words for deaths by signal
_NO_ACPI = {"acpi_tables": "false"}
_AT_ONCE, _ROUNDS = 4, 3
STAYS_S = 0.5  # a signal that kills does so at once


async def _ended(guest: Guest, wanted: tuple[int, ...], after: str) -> str:
    status = await guest.end()
    if status is None:
        raise Wrong(f"bhyve runs on after {after}")
    if status not in wanted:
        raise Wrong(f"bhyve ended with {status} after {after}, not {' or '.join(map(str, wanted))}: {guest.said}")
    return f"exit status {status}"


def _when_told(word: str, *wanted: int) -> Check:
    async def try_it(bench: Bench) -> str:
        async with bench.guest() as guest:
            (await guest.booted()).say(word)
            return await _ended(guest, wanted, word)

    return Check("1.7.1", f"a guest's {word} is exit status {wanted[0]}", try_it)


def _when_forced(how: str, wanted: int) -> Check:
    async def try_it(bench: Bench) -> str:
        async with bench.guest() as guest:
            await guest.booted()
            await bench.vmm.force(GUEST, how)
            return await _ended(guest, (wanted,), f"--force-{how}")

    return Check("1.9", f"bhyvectl --force-{how} is exit status {wanted}", try_it)


async def _forced_twice(bench: Bench) -> str:
    async with bench.guest() as guest:
        await guest.booted()
        await bench.vmm.force(GUEST, "poweroff")
        await _ended(guest, (1,), "--force-poweroff")
    again = await bench.tool("bhyvectl", f"--vm={GUEST}", "--force-poweroff")
    if again.status == 0 or again.text.strip() != "errno = 37":
        raise Wrong(f"exit status {again.status}, {said_by(again)}")
    return f"exit status {again.status}, {said_by(again)}"


async def _button(bench: Bench, *, ignore_term: bool) -> str:
    async with bench.guest(ignore_term=ignore_term) as guest:
        await (await guest.booted()).type("acpi")
        guest.signal(signal.SIGTERM)
        return await _ended(guest, (1,), "SIGTERM with ACPI on")


async def _press(bench: Bench) -> str:
    return await _button(bench, ignore_term=False)


async def _press_though_ignored(bench: Bench) -> str:
    return await _button(bench, ignore_term=True)


async def _early_term_kills(bench: Bench) -> str:
    async with bench.guest(_NO_ACPI, ignore_term=False) as guest:
        await guest.booted()
        guest.signal(signal.SIGTERM)
        return await _ended(guest, (_TERMINATED,), "SIGTERM before ACPI is on")


async def _early_term_harmless(bench: Bench) -> str:
    async with bench.guest(_NO_ACPI) as guest:
        await guest.booted()
        guest.signal(signal.SIGTERM)
        status = await guest.end(STAYS_S)
        if status is not None:
            raise Wrong(f"bhyve ended with {status}")
        await guest.type("xx")
        return "it runs on and echoes"


async def _title(bench: Bench) -> str:
    async with bench.guest() as guest:
        await guest.booted()
        if not await bench.titled(guest):
            raise Wrong(f'ps shows "{(await bench.processes.look_soon()).commands.get(guest.pid, "")}"')
        return f'ps shows "bhyve: {GUEST}"'


async def _killed_stays_busy(bench: Bench) -> str:
    async with bench.guest() as guest:
        await guest.booted()
        guest.signal(signal.SIGKILL)
        await _ended(guest, (_KILLED,), "SIGKILL")
    if not bench.vmm.exists(GUEST):
        raise Wrong("the node is gone")
    if await bench.vmm.ended_cleanly(GUEST):
        raise Wrong("its vCPUs are said to be suspended")
    async with bench.guest(fresh=False) as second:
        status = await _ended(second, (4, 71), "a start on the node of a killed run")
        return f"the next start: {status}, {second.said}"


async def _clean_end_may_restart(bench: Bench) -> str:
    async with bench.guest() as guest:
        (await guest.booted()).say("poweroff")
        await _ended(guest, (1,), "poweroff")
    if not await bench.vmm.ended_cleanly(GUEST):
        raise Wrong("not all vCPUs are said to be suspended")
    async with bench.guest(fresh=False) as second:
        await second.booted()
        return "a second run on the same node boots"


async def _second_bhyve(bench: Bench) -> str:
    async with bench.guest() as guest:
        await guest.booted()
        async with bench.guest({"lpc.com1.path": ""}, fresh=False) as second:
            status = await _ended(second, (4, 71), "a second bhyve of one name")
        await guest.type("xx")
        return f"the second: {status}; the first runs on"


async def _create(bench: Bench) -> None:
    await bench.needs.vmm()
    await bench.needs.fresh_node()
    made = await bench.tool("bhyvectl", f"--vm={GUEST}", "--create")
    if made.status != 0 or not bench.vmm.exists(GUEST):
        raise Wrong(f"--create ended with {made.status}, {said_by(made) or 'and made no node'}")


async def _destroy(bench: Bench) -> str:
    await _create(bench)
    first = await bench.tool("bhyvectl", f"--vm={GUEST}", "--destroy")
    await bench.needs.fresh_node()  # waits for a name that lingers
    again = await bench.tool("bhyvectl", f"--vm={GUEST}", "--destroy")
    if first.status != 0 or again.status != 1:
        raise Wrong(f"exit status {first.status}, and {again.status} without a node, not 0 and 1")
    return f"gone; without a node exit status 1, {said_by(again)}"


async def _destroy_at_once(bench: Bench) -> str:
    """One node can be destroyed by one of several: whoever else says 0 has been refused by the kernel, and did not look.

    Which of them opens the node in time is chance, so the statuses alone are no failure; that the node stays would be.
    """
    for _ in range(_ROUNDS):
        await _create(bench)
        statuses: list[int] = []

        async def destroy(found: list[int] = statuses) -> None:
            found.append((await bench.tool("bhyvectl", f"--vm={GUEST}", "--destroy")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(_AT_ONCE):
                nursery.start_soon(destroy)
        await bench.needs.fresh_node()
        if statuses.count(0) > 1:
            return f"{statuses.count(0)} of {_AT_ONCE} for one node ended with 0, so a refusal is 0 too; the absent node is the proof"
    return f"only one of {_AT_ONCE} ended with 0 in {_ROUNDS} rounds: not seen here; the absent node is the proof"


def _refused(title: str, status: int, text: str, variables: dict[str, str]) -> Check:
    async def try_it(bench: Bench) -> str:
        async with bench.guest(variables) as guest:
            how = await _ended(guest, (status,), "a start that cannot succeed")
            if text not in guest.said:
                raise Wrong(f"bhyve did not say {text!r} but: {guest.said}")
            return f"{how}, {guest.said}"

    return Check("1.7.5", title, try_it)


async def _loader_without_disk(bench: Bench) -> str:
    await bench.needs.pc()
    bench.needs.command("bhyveload")
    result = await bench.tool("bhyveload", "-m", "64M", "-d", f"{bench.directory}/no-such-disk", GUEST)
    if result.status != 64:
        raise Wrong(f"exit status {result.status}: {result.stderr.decode(errors='replace').strip()}")
    return f"exit status 64, {result.stderr.decode(errors='replace').strip()}"


async def _firmware(bench: Bench) -> str:
    await bench.needs.pc()
    rom = of_package(UEFI, bench.tools.bin)
    if rom is None:
        raise NotHere("edk2-bhyve is not installed: pkg install edk2-bhyve")
    variables = shutil.copy(f"{os.path.dirname(rom)}/{UEFI_VARS}", f"{bench.directory}/vars.fd")
    files = {"bootrom": rom, "lpc.bootrom": rom, "bootvars": variables, "lpc.bootvars": variables}
    async with bench.guest({"memory.size": "256M", **files}) as guest:
        if not await bench.titled(guest):
            raise Wrong(f"bhyve did not come up: {guest.said}")
        await bench.vmm.force(GUEST, "poweroff")
        return await _ended(guest, (1,), "--force-poweroff")


CHECKS = {
    "nodes in /dev/vmm": (
        Check("1.11", "bhyvectl --destroy takes a node away", _destroy),
        Check("1.10", "bhyvectl --destroy is 0 when the kernel refuses, too: only the absent node proves it", _destroy_at_once),
        Check("1.10", "the node of a killed run stays, and is busy", _killed_stays_busy),
        Check("1.10", "the node of a run that ended by itself can be used again", _clean_end_may_restart),
        Check("8.10", "a second bhyve of the same name is refused", _second_bhyve),
        Check("8.2", "a running bhyve has its guest's name as its title", _title),
    ),
    "exit statuses of bhyve": (
        _when_told("reboot", 0),
        _when_told("poweroff", 1),
        _when_told("halt", 2),
        _when_told("panic", 3, _ABORTED),  # an old bhyve on AMD aborts
        _when_forced("poweroff", 1),
        _when_forced("reset", 0),
        Check("1.9", "a second --force-poweroff is refused with errno 37", _forced_twice),
        _refused(
            "a disk that is not there is exit status 4",
            4,
            "ould not open backing file",
            {"pci.0.4.0.device": "virtio-blk", "pci.0.4.0.path": "/nonexistent/disk"},
        ),
        _refused("no loader and no bootrom is exit status 4", 4, "", {"bootrom": "", "lpc.bootrom": ""}),
        Check("2.2", "bhyveload without its disk is exit status 64", _loader_without_disk),
    ),
    "the power button": (
        Check("1.8", "SIGTERM with ACPI on shuts the guest down", _press),
        Check("8.3", "and does so though SIGTERM was ignored when bhyve began", _press_though_ignored),
        Check("1.8", "SIGTERM before ACPI is on kills bhyve", _early_term_kills),
        Check("8.3", "and is harmless when it was ignored when bhyve began", _early_term_harmless),
    ),
    "firmware": (Check("2.4", "UEFI firmware boots with variables of its own", _firmware),),
}
