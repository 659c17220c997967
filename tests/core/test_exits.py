"""What the end of a process means: contract 1.7.6, row by row."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.exits import HINTS, ExitKind, Outcome, Stage, classify, classify_loader, hint_for, never_ran

# status, stderr, node there, was up, asked -> kind
ROWS = {
    "reboot": (0, "", True, True, False, "reboot"),
    "reboot while stopping": (0, "", True, True, True, "reboot"),
    "descriptor limit": (0, "pipe: Too many open files\n", True, False, False, "start-error"),
    "power-off": (1, "", True, True, False, "poweroff"),
    "power-off of a guest that was never seen up": (1, "", True, False, False, "poweroff"),
    "power-off with chatter of devices": (1, "rfb: client gone\nFailed to set mac\n", True, True, False, "poweroff"),
    "power-off, node not looked for": (1, "", None, True, False, "poweroff"),
    "usage": (1, "bhyve: illegal option -- Z\nUsage: bhyve [-aehpxACDHPSWY]\n", False, False, False, "config-error"),
    "option without argument": (1, "bhyve: option requires an argument -- c\n", False, False, False, "config-error"),
    "gdb port": (1, "bhyve: gdb socket bind: Address already in use\n", True, False, False, "start-error"),
    "gdb non-blocking": (1, "Failed to mark gdb socket non-blocking.\n", True, False, False, "start-error"),
    "linker": (1, 'ld-elf.so.1: Shared object "libnv.so.1" not found\n', False, False, False, "start-error"),
    "checkpoint thread": (1, "checkpoint mutex init\n", True, False, False, "start-error"),
    "restore": (1, "Failed to restore VM memory.\n", True, False, False, "start-error"),
    "arm64 firmware": (1, "bhyve: open(/nonexistent): No such file or directory\n", True, False, False, "start-error"),
    "passthru msi": (1, "bhyve: vm_setup_pptdev_msi: Device busy\n", True, True, False, "error"),
    "passthru msix": (1, "bhyve: vm_setup_pptdev_msix: Device busy\n", True, True, False, "error"),
    "passthru msix off": (1, "bhyve: vm_disable_pptdev_msix: Device busy\n", True, True, False, "error"),
    "destroyed on 14": (1, "vm_run error -1, errno 6\n", False, True, False, "destroyed"),
    "node gone on 14": (1, "", False, True, False, "destroyed"),
    "another run error on 14": (1, "vm_run error -1, errno 22\n", True, True, False, "error"),
    "halt": (2, "", True, True, False, "halt"),
    "triple fault": (3, "", True, True, False, "triple-fault"),
    "set-up": (4, "Could not open backing file: No such file or directory\n", True, False, False, "start-error"),
    "set-up, configuration": (4, 'pci slot 0:4:0: unknown device "virtio-blq"\n', True, False, False, "config-error"),
    "run time": (4, "vm_loop: unexpected exitcode 0x7\n", True, True, False, "error"),
    "destroyed on 15": (4, "vm_run error -1, errno 6\n", False, True, False, "destroyed"),
    "suspended": (5, "", False, True, False, "suspended"),
    "usage of a value": (64, "invalid memsize 'x'\n", False, False, False, "config-error"),
    "operating system": (71, "bhyve: could not activate CPU 1: Device busy\n", True, False, False, "start-error"),
    "unknown suspend reason": (100, "vmexit_suspend: invalid reason 9\n", True, True, False, "error"),
    "not executable": (126, "", True, False, False, "start-error"),
    "not found": (127, "", True, False, False, "start-error"),
    "an unheard-of status": (42, "", True, True, False, "error"),
    "SIGTERM after a press": (143, "", True, True, True, "stopped-early"),
    "SIGTERM from outside": (143, "", True, True, False, "killed"),
    "SIGKILL of ours": (137, "", True, True, True, "killed"),
    "out of swap": (137, "", True, True, False, "killed"),
    "abort": (134, "Failed to emulate instruction sequence [ f3 ]\n", True, True, False, "killed"),
    "core dump while stopping": (139, "", True, True, True, "killed"),
    "keeper killed": (None, "", True, True, False, "unknown"),
    "no process for bhyve": (None, "Cannot fork: Resource temporarily unavailable\n", True, False, False, "start-error"),
    "no process, elsewhere": (None, "keeper: 0: Cannot fork\n", True, False, False, "start-error"),
}

# And what people read of them: history, events, `vmctl why`.
WORDS = {
    "the guest rebooted": ["reboot", "reboot while stopping"],
    "bhyve ran out of descriptors": ["descriptor limit"],
    "the guest powered off": [
        "power-off",
        "power-off of a guest that was never seen up",
        "power-off with chatter of devices",
        "power-off, node not looked for",
    ],
    "bhyve did not understand its options": ["usage", "option without argument"],
    "bhyve could not set up its gdb port": ["gdb port", "gdb non-blocking"],
    "bhyve could not start (status 1)": ["linker", "checkpoint thread", "arm64 firmware"],
    "bhyve could not restore the saved state": ["restore"],
    "the host refused the interrupts of a passthrough device": ["passthru msi", "passthru msix", "passthru msix off"],
    "the VM was destroyed from outside": ["destroyed on 14", "node gone on 14", "destroyed on 15"],
    "bhyve met an error while the guest ran": ["another run error on 14", "run time"],
    "the guest halted its CPUs": ["halt"],
    "the guest crashed (triple fault)": ["triple fault"],
    "bhyve could not set the guest up": ["set-up"],
    "bhyve refused its configuration": ["set-up, configuration"],
    "suspended to a file": ["suspended"],
    "bhyve refused its configuration (status 64)": ["usage of a value"],
    "bhyve met an error of the operating system (status 71)": ["operating system"],
    "bhyve ended for a reason it does not know (status 100)": ["unknown suspend reason"],
    "bhyve could not be run": ["not executable", "not found"],
    "bhyve ended with status 42": ["an unheard-of status"],
    "ended by SIGTERM before the guest had ACPI on": ["SIGTERM after a press"],
    "bhyve was killed by SIGTERM": ["SIGTERM from outside"],
    "killed by SIGKILL as the last step of the stop": ["SIGKILL of ours"],
    "bhyve was killed by SIGKILL": ["out of swap"],
    "bhyve aborted (SIGABRT): it could not go on with what the guest did": ["abort"],
    "bhyve was killed by SIGSEGV": ["core dump while stopping"],
    "ended, and nobody wrote down how (its keeper was killed)": ["keeper killed"],
    "bhyve could not be started: the host makes no further process": ["no process for bhyve", "no process, elsewhere"],
}


def ended(status: int | None, stderr: str = "", **more: Any) -> Outcome:
    """How a bhyve ended."""
    return Outcome(stage=Stage.RUNNING, status=status, stderr=stderr, **more)


@pytest.mark.parametrize("name", ROWS)
def test_every_observation_has_its_class(name: str) -> None:
    """The table of contract 1.7.6 with the texts of 1.7.2 to 1.7.5."""
    status, stderr, node, was_up, asked, kind = ROWS[name]
    outcome = Outcome(stage=Stage.RUNNING, status=status, stderr=stderr, node_present=node)

    end = classify(outcome, was_up=was_up, asked=asked)

    assert (end.kind, end.status) == (kind, status)
    assert name in WORDS[end.text]


def test_every_kind_occurs() -> None:
    """No kind of the wire is out of reach."""
    assert {row[-1] for row in ROWS.values()} == set(ExitKind)


def test_before_december_2025_a_suspend_ends_with_0() -> None:
    """Only our own request, and what came of it, tell it from a reboot."""
    assert classify(ended(0, saved="/db/saved"), was_up=True, asked=False).kind is ExitKind.SUSPENDED
    assert classify(ended(0, unsaved="it has no state"), was_up=True, asked=False).kind is ExitKind.ERROR
    assert classify(ended(0), was_up=True, asked=False).kind is ExitKind.REBOOT


def test_a_signal_says_its_name() -> None:
    """143 of the shell is SIGTERM to people, and a signal without a name is a number."""
    assert "SIGSEGV" in classify(Outcome(stage=Stage.RUNNING, status=139), was_up=True, asked=True).text
    assert "last step" not in classify(Outcome(stage=Stage.RUNNING, status=139), was_up=True, asked=True).text
    odd = classify(Outcome(stage=Stage.RUNNING, status=128 + 31), was_up=True, asked=False)
    assert (odd.signal, odd.text) == (31, "bhyve was killed by signal 31")
    hang_up = classify(Outcome(stage=Stage.RUNNING, status=129), was_up=True, asked=False)
    assert (hang_up.signal, hang_up.text) == (1, "bhyve was killed by SIGHUP")


def test_the_shells_128_is_no_signal() -> None:
    """The numbers of signals begin with 1."""
    assert classify(ended(128), was_up=True, asked=False).signal is None
    end = classify_loader("bhyveload", Outcome(stage=Stage.LOADING, status=128))
    assert end is not None
    assert (end.signal, end.text) == (None, "bhyveload failed with status 128")


@pytest.mark.parametrize(("status", "asked", "signal"), [(143, True, 15), (137, True, 9), (137, False, 9), (134, False, 6)])
def test_an_end_by_a_signal_keeps_status_and_signal(status: int, asked: bool, signal: int) -> None:
    """As the wire and the records have them."""
    end = classify(ended(status), was_up=True, asked=asked)
    assert (end.status, end.signal) == (status, signal)


@pytest.mark.parametrize(("status", "text"), [(1, "its power was cut"), (2, "the guest halted its CPUs"), (0, "the guest rebooted")])
def test_a_power_cut_is_not_the_guests_doing(status: int, text: str) -> None:
    """bhyve ends with one status for both; whoever has cut the power knows. It stays a power-off for those that count."""
    end = classify(Outcome(stage=Stage.RUNNING, status=status, node_present=True), was_up=True, asked=True, forced=True)

    assert end.text == text
    assert (end.kind is ExitKind.POWEROFF) is (status == 1)


def test_a_clean_end_has_no_remedy() -> None:
    """What bhyve muttered hours before does not make a power-off look like a fault."""
    outcome = Outcome(stage=Stage.RUNNING, status=1, stderr="bind: Address already in use\n", node_present=True)
    assert classify(outcome, was_up=True, asked=False).hint == ""


@pytest.mark.parametrize(
    ("stderr", "word"),
    [
        ("bhyve: vm_openf: Device busy\n", "another bhyve"),
        ("bhyve: vm_openf: Cannot allocate memory\n", "maxvmms"),
        ("open of tap device /dev/tap7 failed\n", "Opened by PID"),
        ("Unable to setup memory (12)\n", "max_user_wired"),
        ("Could not open backing file: No such file or directory\n", "zvol"),
        ("vm_create: Operation not permitted\n", "allow.vmm"),
        ("bhyve: vm_openf: Operation not permitted\n", "allow.vmm"),
        ("bhyve: init_bootrom: vm_create_devmem: No such file or directory\n", "unhide vmm.io"),
        ("bhyve: vm_openf: No such file or directory\n", "unhide vmm, vmm/* and vmmctl"),
        ("vm_open: web could not be opened. No such file or directory\n", "kldload vmm"),
        ("open of tap device /dev/tap7 failed\n", "unhide tap*"),
        ("Unable to initialize backend '/dev/nmdm-web.1A' for LPC device com1\n", "unhide nmdm-*"),
    ],
)
def test_known_messages_have_remedies(stderr: str, word: str) -> None:
    """`vmctl why` says what to do."""
    outcome = Outcome(stage=Stage.RUNNING, status=4, stderr=stderr)
    assert word in classify(outcome, was_up=False, asked=False).hint
    assert word in hint_for(stderr)


BUSY = "bhyve: vm_openf: Device busy\n"


@pytest.mark.parametrize("status", [4, 71, 42, 139, None])
def test_every_end_that_is_not_clean_has_its_remedy(status: int | None) -> None:
    """Whichever way bhyve ended after it had said what was wrong."""
    assert "another bhyve" in classify(ended(status, BUSY, pid=7), was_up=False, asked=False).hint


@pytest.mark.parametrize("status", [1, 2, 64, 127, 139, None])
def test_every_failure_of_a_loader_has_its_remedy(status: int | None) -> None:
    """And its status, and the signal if it was one."""
    end = classify_loader("bhyveload", Outcome(stage=Stage.LOADING, status=status, stderr=BUSY))

    assert end is not None
    assert "another bhyve" in end.hint
    assert (end.status, end.signal) == (status, 11 if status == 139 else None)


def test_a_host_without_room_for_a_process_has_a_remedy() -> None:
    """Where to look for the limit."""
    assert "kern.maxproc" in classify(ended(None, "Cannot fork\n"), was_up=False, asked=False).hint


def test_what_is_not_known_has_no_remedy() -> None:
    """Better none than a wrong one."""
    assert hint_for("bhyve: something new\n") == ""


def test_a_bhyve_that_was_there_is_no_failed_start() -> None:
    """Whatever it has printed: its keeper had a child, and was killed."""
    end = classify(ended(None, "Cannot fork\n", pid=7), was_up=False, asked=False)

    assert end.kind is ExitKind.UNKNOWN


def test_remedies_are_sentences_for_people() -> None:
    """Lower case but for names, no full stop."""
    assert all(hint and not hint.endswith(".") for _, hint in HINTS)
    assert not any("contract" in hint or "bhyve-firmware" in hint for _, hint in HINTS)  # neither is in our manuals


LOADERS = [
    ("bhyveload", 0, None),
    ("bhyveload", 1, "bhyveload failed with status 1"),
    ("bhyveload", 2, "the boot loader asked for a reboot"),
    ("bhyveload", 64, "bhyveload could not open its disk or console, or refused its options"),
    ("bhyveload", 137, "bhyveload was killed by SIGKILL"),
    ("bhyveload", 128 + 31, "bhyveload was killed by signal 31"),
    ("grub-bhyve", 0, None),
    ("grub-bhyve", 2, "grub-bhyve failed with status 2"),
    ("grub-bhyve", 64, "grub-bhyve failed with status 64"),
    ("grub-bhyve", 126, "grub-bhyve could not be run: is it installed?"),
    ("grub-bhyve", 127, "grub-bhyve could not be run: is it installed?"),
    ("grub-bhyve", None, "grub-bhyve ended, and nobody wrote down how"),
]


@pytest.mark.parametrize(("loader", "status", "words"), LOADERS)
def test_the_end_of_a_loader(loader: str, status: int | None, words: str | None) -> None:
    """0: the kernel is loaded. All else is a failed start, which says why (contract 2.2, 2.3)."""
    end = classify_loader(loader, Outcome(stage=Stage.LOADING, status=status))
    if words is None:
        assert end is None
    else:
        assert end is not None
        assert end.kind is ExitKind.START_ERROR
        assert end.text == words


@pytest.mark.parametrize(
    ("saved", "unsaved", "kind", "text"),
    [
        ("/db/saved", "", "suspended", "suspended to disk at /db/saved"),
        ("", "", "suspended", "suspended to a file"),
        ("", "it has no state.meta", "error", "bhyve says that it was suspended, but its state is not whole: it has no state.meta"),
    ],
)
def test_a_suspend_is_one_when_its_state_is_whole(saved: str, unsaved: str, kind: str, text: str) -> None:
    """Somebody else's suspend is believed; one of bhyved's own is looked at."""
    end = classify(ended(5, saved=saved, unsaved=unsaved), was_up=True, asked=False)

    assert (end.kind, end.text) == (kind, text)


def test_a_state_that_cannot_be_restored_ends_the_starts() -> None:
    """It is a failed start, and the only kind of it that would fail in the same way for ever."""
    refused = classify(ended(1, "Failed to restore VM memory.\n"), was_up=False, asked=False)
    others = [classify(ended(status, "no tap"), was_up=False, asked=False) for status in (1, 4, 71, 127)]

    assert (refused.kind, refused.text, refused.final) == ("start-error", "bhyve could not restore the saved state", True)
    assert "vmctl start --cold" in refused.hint
    assert not any(end.final for end in others)


@pytest.mark.parametrize(
    ("status", "stderr", "proved"),
    [
        (1, "Failed to read checkpoint info from file: 'x'.", True),
        (1, "Usage: bhyve", True),
        (1, "", False),
        (1, "vm_run error -1, errno 6", False),
        (4, "Device emulation initialization error: No such file or directory", True),
        (4, "vm_run error -1, errno 6", False),
        (64, "", True),
        (71, "", True),
        (126, "", True),
        (127, "", True),
        (0, "", False),
        (5, "", False),
        (137, "", False),
        (None, "", False),
        (None, "Cannot fork: Resource temporarily unavailable", True),
    ],
)
def test_what_proves_that_the_guest_has_not_run(status: int | None, stderr: str, proved: bool) -> None:
    """A state is resumed a second time only when the first bhyve cannot have touched the disks."""
    assert never_ran(ended(status, stderr)) is proved


@given(
    st.none() | st.integers(0, 255), st.text(), st.none() | st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", "/db/saved"])
)
def test_classify_is_total(status: int | None, stderr: str, node: bool | None, was_up: bool, asked: bool, saved: str) -> None:
    """Every outcome has a meaning and a sentence without a full stop, and the signal fits the status."""
    outcome = Outcome(stage=Stage.RUNNING, status=status, stderr=stderr, node_present=node, saved=saved)

    end = classify(outcome, was_up=was_up, asked=asked)

    assert end.text
    assert not end.text.endswith(".")
    assert (end.signal is not None) == (status is not None and status > 128)
    assert (end.kind is ExitKind.UNKNOWN) == (status is None and "Cannot fork" not in stderr)
