"""What the end of a bhyve process means.

`classify` turns what the keeper wrote down, what bhyve printed and what became of the node into one `Exit`. It is total: every
status has a meaning, and a missing one is `unknown`. The driver calls it once a run; policy, history, metrics and `vmctl why` use
the result. Source: contract 1.7, above all 1.7.6 and the end of 1.7.2 (with `bhyve -k FILE NAME` a usage error cannot happen).
"""

import enum
import re
from datetime import datetime

import msgspec


class ExitKind(enum.StrEnum):
    """How a run ended, in an operator's words."""

    REBOOT = "reboot"
    POWEROFF = "poweroff"
    HALT = "halt"
    TRIPLE_FAULT = "triple-fault"
    ERROR = "error"
    SUSPENDED = "suspended"
    START_ERROR = "start-error"
    CONFIG_ERROR = "config-error"
    DESTROYED = "destroyed"
    KILLED = "killed"
    STOPPED_EARLY = "stopped-early"
    UNKNOWN = "unknown"


class Stage(enum.StrEnum):
    """How far a start has come: what the files of a run say (see `host.run`)."""

    PREPARING = "preparing"
    LOADING = "loading"
    RUNNING = "running"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the host found when nobody held the liveness FIFO of a run any more.

    `status` is the shell's: the exit status, or 128 + signal (contract 8.8). None: nobody wrote it down.
    `node_present` is None where it was not looked for. Where bhyved had asked for a suspend, `saved` is the directory of the state that
    is whole on disk, or else `unsaved` says what it lacks.
    """

    stage: Stage
    status: int | None
    pid: int | None = None
    stderr: str = ""
    node_present: bool | None = None
    at: datetime | None = None
    saved: str = ""
    unsaved: str = ""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """One classified end. `text` is a sentence for people; `hint` says what to do about it, or is empty.

    `final`: the start failed, and by itself another would fail like it.
    """

    kind: ExitKind
    text: str
    status: int | None = None
    signal: int | None = None
    hint: str = ""
    final: bool = False


# Signals have the same numbers for these on FreeBSD and Linux; others are shown by number.
SIGNAL_NAMES = {1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
SIGKILL, SIGTERM = 9, 15

# Status 1 without a guest power-off: the table of contract 1.7.2.
_USAGE = re.compile(r"Usage: bhyve|illegal option|option requires an argument")
_PASSTHRU = re.compile(r"vm_setup_pptdev_msix?:|vm_disable_pptdev_msix:")
_DESTROYED_14 = re.compile(r"vm_run error -1, errno (6|25)\b")
_RUN_ERROR = re.compile(r"vm_run error")
_GDB = re.compile(r"^(bhyve: )?(gdb (address resolution|socket|mutex|cv)|Failed to mark gdb socket)", re.MULTILINE)
_RESTORE = re.compile(
    r"Failed to (read checkpoint info|pause PCI device state|restore VM memory|restore PCI device state|restore kernel structs"
    r"|resume PCI device state)|Invalid guest vCPUs \("
)
_RAN = re.compile(r"vm_loop: unexpected exitcode|vm_run error|Attempting to delete unknown cpu|vm exit\[|Unhandled memory access")
_ONE_IS_AN_ERROR = re.compile(r"ld-elf\.so\.1:|checkpoint (mutex|cv) init|^bhyve: open\(", re.MULTILINE)
#: sh's own words: the keeper's, of FreeBSD and with a line number elsewhere.
_NO_FORK = re.compile(r"^(keeper: )?(\d+: )?Cannot fork", re.MULTILINE)
_PIPE_LIMIT = re.compile(r"^(bhyve: )?pipe: ", re.MULTILINE)  # mevent.c ends with status 0: contract 1.7.2, last line

# Set-up failures that trying again cannot mend: the configuration, or the build of bhyve, has to change (contract 1.3, 1.7.5, 3).
_CONFIGURATION = re.compile(
    r"Invalid PCI slot info field|unknown device \"|already occupied!|missing \"device\" value|legacy device \"|Invalid value for "
    r"|Attempting to add value|Failed to create configuration node|is a child of existing variable|Invalid configuration node"
    r"|Invalid config node name|invalid config option|Topology \(|vCPUs requested but only|Invalid bootrom variable size"
    r"|ROM size \d+ is not a multiple|no bootrom (was configured|specified)|max resolution is|minimum resolution"
    r"|Invalid vga setting|VGA rendering not enabled|passthru requires guest memory to be wired|passthru: missing required"
    r"|vtcon: required|Missing \"path\" for block device|Only one (LPC bridge|frame buffer device)|LPC bridge can be present only"
)

# Known messages and their remedies; the first match is shown as the hint. Contract sections name the cause.
HINTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"passthru requires guest memory to be wired"), "set wired = true, PCI passthrough needs wired memory"),
    (
        re.compile(r"Unable to setup memory \(12\)"),
        "not enough memory, or vm.max_user_wired is reached: lower memory, or raise that sysctl",
    ),
    (
        re.compile(r"vm_(create|openf?|reinit|create_devmem): Operation not permitted"),
        "a jail may not use vmm without allow.vmm in its jail.conf(5), which it is given when it is made, after vmm has been loaded",
    ),
    (
        re.compile(r"vm_(create|openf?): File exists"),
        "there is a guest of that name, perhaps in another jail: names are the whole host's",
    ),
    (
        re.compile(r"vm_create_devmem: No such file or directory"),
        "a node of the guest is hidden: a jail's devfs.rules(5) have to unhide vmm.io and vmm.io/*",
    ),
    (re.compile(r"Unable to setup memory \(22\)"), "the node still has another memory size: bhyvectl --destroy it"),
    (re.compile(r"vm_openf: Cannot allocate memory"), "hw.vmm.maxvmms is reached: raise that sysctl"),
    (
        re.compile(r"(vm_openf|vm_reinit): Device busy|could not activate CPU"),
        "the node of an earlier run is still busy: look for another bhyve of that name",
    ),
    (
        re.compile(r"vm_openf?: No such file or directory|vm_open: \S+ could not be opened|vm_create: Device not configured"),
        "is vmm loaded? try kldload vmm and look at dmesg; in a jail, unhide vmm, vmm/* and vmmctl, and see whether the host has that name",
    ),
    (
        re.compile(r"open of tap device (\S+) failed"),
        "the tap is held by another process: ifconfig shows Opened by PID; or hidden: a jail's devfs.rules(5) have to unhide tap*",
    ),
    (re.compile(r"bind: Address already in use"), "another program has the VNC or console port: choose another, or a UNIX socket"),
    (
        re.compile(r"Could not open backing file"),
        "the disk is missing or may not be opened: check the path and, for a zvol, that its pool is imported",
    ),
    (
        re.compile(r"Error opening bootrom \""),
        "the firmware is missing: look at boot.firmware, or pkg install edk2-bhyve (uefi-edk2-bhyve-csm for boot.loader uefi-csm)",
    ),
    (re.compile(r"unrestricted guest capability"), "this CPU has no unrestricted guest: only bhyveload guests with one vCPU run here"),
    (
        re.compile(r"Unable to initialize backend '([^']*)' for LPC device"),
        "the console device is missing: is nmdm loaded? a jail's devfs.rules(5) have to unhide nmdm-*",
    ),
    (re.compile(r"Failed to init TPM device"), "the TPM cannot be reached: is /dev/tpm0 there, or swtpm running?"),
    (re.compile(r"is not using the ppt\(4\) driver"), "the device is not reserved: name it in pptdevs in /boot/loader.conf"),
    (
        re.compile(r"ahci-hd|ahci-cd|amd_hostbridge"),
        "that device name is for bhyve's command line: in bhyve.options it is ahci with port.0.type, or hostbridge; see bhyve_config(5)",
    ),
    (
        re.compile(r"Failed to (start checkpoint thread|bind socket)"),
        "a bhyve that can save guests needs the directory /var/run/bhyve: make it",
    ),
    (re.compile(r"VM exit on HLT not supported"), "this CPU cannot run bhyve guests"),
    (
        _RESTORE,
        "its saved state is kept; it needs the bhyve, the CPU model and the devices that it was saved with: "
        "vmctl start --cold throws it away and boots the guest",
    ),
    (_PIPE_LIMIT, "the descriptor limit was reached: raise it for the daemon class"),
    (_NO_FORK, "the host, or the login class daemon, may have no more processes: look at kern.maxproc and at limits -C daemon"),
    (re.compile(r"ld-elf\.so\.1:"), "bhyve's libraries do not fit: finish the upgrade of the base system"),
)


def hint_for(stderr: str) -> str:
    """The remedy for the first known message in bhyve's output, or ''."""
    return next((hint for pattern, hint in HINTS if pattern.search(stderr)), "")


def classify(outcome: Outcome, *, was_up: bool, asked: bool, forced: bool = False) -> Exit:
    """Say what an outcome of the stage `running` means.

    `was_up`: the title had changed, or the guest had printed something. `asked`: an operator or the daemon was stopping it.
    `forced`: its power had been cut, which bhyve's status does not tell from a guest that powers off (contract 1.7.1).
    """
    status, stderr = outcome.status, outcome.stderr
    hint = hint_for(stderr)
    if status is None and _no_process(outcome):
        return Exit(kind=ExitKind.START_ERROR, text="bhyve could not be started: the host makes no further process", hint=hint)
    if status is None:
        return Exit(kind=ExitKind.UNKNOWN, text="ended, and nobody wrote down how (its keeper was killed)", hint=hint)
    if status > 128:
        return _by_signal(status, asked=asked, hint=hint)
    kind, text = _by_status(outcome, was_up=was_up)
    if status == 0 and _PIPE_LIMIT.search(stderr):
        kind, text = ExitKind.START_ERROR, "bhyve ran out of descriptors"
    if kind is ExitKind.POWEROFF and forced:
        text = "its power was cut"
    clean = kind in (ExitKind.REBOOT, ExitKind.POWEROFF, ExitKind.HALT, ExitKind.SUSPENDED)
    final = status == 1 and kind is ExitKind.START_ERROR and _RESTORE.search(stderr) is not None
    return Exit(kind=kind, text=text, status=status, hint="" if clean else hint, final=final)


def _no_process(outcome: Outcome) -> bool:
    """Whether the keeper, which writes down everything else, could not make a child."""
    return outcome.pid is None and _NO_FORK.search(outcome.stderr) is not None


def never_ran(outcome: Outcome) -> bool:
    """Whether the end of a bhyve proves that no vCPU of the guest has run: a saved state that it was given is as good as it was.

    After a signal, or where nobody wrote the end down, nothing is proved.
    """
    match outcome.status:
        case None:
            return _no_process(outcome)
        case 64 | 71 | 126 | 127:
            return True
        case 1:
            texts = (_RESTORE, _USAGE, _GDB, _ONE_IS_AN_ERROR)
            return any(text.search(outcome.stderr) for text in texts)
        case 4:
            return _RAN.search(outcome.stderr) is None
        case _:
            return False


def _by_signal(status: int, *, asked: bool, hint: str) -> Exit:
    signal = status - 128
    name = SIGNAL_NAMES.get(signal, f"signal {signal}")
    if signal == SIGTERM and asked:
        # The press came before the guest had ACPI on: a normal end (contract 1.8).
        return Exit(kind=ExitKind.STOPPED_EARLY, text="ended by SIGTERM before the guest had ACPI on", status=status, signal=signal)
    if signal == SIGKILL and asked:
        return Exit(kind=ExitKind.KILLED, text="killed by SIGKILL as the last step of the stop", status=status, signal=signal)
    text = f"bhyve was killed by {name}" if signal != 6 else "bhyve aborted (SIGABRT): it could not go on with what the guest did"
    return Exit(kind=ExitKind.KILLED, text=text, status=status, signal=signal, hint=hint)


def _by_status(outcome: Outcome, *, was_up: bool) -> tuple[ExitKind, str]:
    match outcome.status:
        case 0 if outcome.saved or outcome.unsaved:
            return _suspended(outcome)  # before December 2025 a suspend ends with 0: contract 1.7.1
        case 0:
            return ExitKind.REBOOT, "the guest rebooted"
        case 1:
            return _one(outcome)
        case 2:
            return ExitKind.HALT, "the guest halted its CPUs"
        case 3:
            return ExitKind.TRIPLE_FAULT, "the guest crashed (triple fault)"
        case 4:
            return _four(outcome, was_up=was_up)
        case 5:
            return _suspended(outcome)
        case 64:
            return ExitKind.CONFIG_ERROR, "bhyve refused its configuration (status 64)"
        case 71:
            return ExitKind.START_ERROR, "bhyve met an error of the operating system (status 71)"
        case 100:
            return ExitKind.ERROR, "bhyve ended for a reason it does not know (status 100)"
        case 126 | 127:
            return ExitKind.START_ERROR, "bhyve could not be run"
        case other:
            return ExitKind.ERROR, f"bhyve ended with status {other}"


def _suspended(outcome: Outcome) -> tuple[ExitKind, str]:
    if outcome.unsaved:
        return ExitKind.ERROR, f"bhyve says that it was suspended, but its state is not whole: {outcome.unsaved}"
    return ExitKind.SUSPENDED, f"suspended to disk at {outcome.saved}" if outcome.saved else "suspended to a file"


def _one(outcome: Outcome) -> tuple[ExitKind, str]:
    stderr = outcome.stderr
    if _USAGE.search(stderr):
        return ExitKind.CONFIG_ERROR, "bhyve did not understand its options"
    if _GDB.search(stderr):
        return ExitKind.START_ERROR, "bhyve could not set up its gdb port"
    if _PASSTHRU.search(stderr):
        return ExitKind.ERROR, "the host refused the interrupts of a passthrough device"
    if _RESTORE.search(stderr):
        return ExitKind.START_ERROR, "bhyve could not restore the saved state"
    if _ONE_IS_AN_ERROR.search(stderr):
        return ExitKind.START_ERROR, "bhyve could not start (status 1)"
    # bhyvectl --destroy of a live guest gives 1 on 13 and 14; we never use -D, so after a power-off the node is there.
    if _DESTROYED_14.search(stderr) or outcome.node_present is False:
        return ExitKind.DESTROYED, "the VM was destroyed from outside"
    if _RUN_ERROR.search(stderr):
        return ExitKind.ERROR, "bhyve met an error while the guest ran"
    return ExitKind.POWEROFF, "the guest powered off"


def _four(outcome: Outcome, *, was_up: bool) -> tuple[ExitKind, str]:
    if was_up:
        if outcome.node_present is False:
            return ExitKind.DESTROYED, "the VM was destroyed from outside"
        return ExitKind.ERROR, "bhyve met an error while the guest ran"
    if _CONFIGURATION.search(outcome.stderr):
        return ExitKind.CONFIG_ERROR, "bhyve refused its configuration"
    return ExitKind.START_ERROR, "bhyve could not set the guest up"


def classify_loader(loader: str, outcome: Outcome) -> Exit | None:
    """What the end of bhyveload or grub-bhyve means; None: the kernel is loaded, bhyve may start (contract 2.2, 2.3)."""
    status = outcome.status
    if status == 0:
        return None
    hint = hint_for(outcome.stderr)
    if status is None:
        return Exit(kind=ExitKind.START_ERROR, text=f"{loader} ended, and nobody wrote down how", hint=hint)
    if status > 128:
        signal = status - 128
        name = SIGNAL_NAMES.get(signal, f"signal {signal}")
        return Exit(kind=ExitKind.START_ERROR, text=f"{loader} was killed by {name}", status=status, signal=signal, hint=hint)
    if status == 2 and loader == "bhyveload":
        return Exit(kind=ExitKind.START_ERROR, text="the boot loader asked for a reboot", status=status, hint=hint)
    if status == 64 and loader == "bhyveload":
        text = "bhyveload could not open its disk or console, or refused its options"
        return Exit(kind=ExitKind.START_ERROR, text=text, status=status, hint=hint)
    if status in (126, 127):
        return Exit(kind=ExitKind.START_ERROR, text=f"{loader} could not be run: is it installed?", status=status, hint=hint)
    return Exit(kind=ExitKind.START_ERROR, text=f"{loader} failed with status {status}", status=status, hint=hint)
