"""What a start would do, as `vmctl plan NAME` prints it: nothing is touched, no secret is shown."""

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from bhyved.core import advice, bhyveconf, limits, seed, slots
from bhyved.core.argv import command_line
from bhyved.core.assigned import Assigned, Target, vars_template
from bhyved.core.loader import LoaderCall, loader_call
from bhyved.core.spec import VmSpec
from bhyved.core.units import enc_hook

REDACTED = "********"


class Plan(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One start, step by step. The fields are those of `vmctl plan --json`."""

    vm: str
    host: str
    before: tuple[tuple[str, ...], ...]  # host commands
    loader: tuple[str, ...]
    loader_files: dict[str, str]
    seed_files: dict[str, str]  # of cloud-init
    config: str
    command: tuple[str, ...]
    limits: tuple[str, ...]  # rules of rctl(8)
    after: tuple[tuple[str, ...], ...]
    slots: dict[str, str]
    refused_by: dict[str, tuple[str, ...]]  # release → why
    warnings: tuple[str, ...]


def plan(spec: VmSpec, assigned: Assigned, target: Target, directory: str, extra: tuple[str, ...] = ()) -> Plan:
    """Lay out a start. `directory` is the run's own; `extra` are warnings the caller knows of. Raises ConfError."""
    shown = msgspec.structs.replace(assigned, vnc_password=REDACTED if _has_password(spec) else "")
    tree = {name: REDACTED if name.endswith(".password") else value for name, value in bhyveconf.tree(spec, shown, target).items()}
    call = loader_call(spec, assigned, f"{directory}/loader") or LoaderCall(())
    refused = {str(each): tuple(map(advice.remark_text, why)) for each, why in advice.releases_accepting(spec).items() if why}
    return Plan(
        vm=spec.name,
        host=str(target),
        before=tuple(_before(spec, assigned, directory)),
        loader=call.argv,
        loader_files=call.files,
        seed_files=_seed_files(spec, assigned),
        config=bhyveconf.written(tree),
        command=command_line(tree, target),
        limits=() if spec.limits is None else limits.rules(spec.limits, "PID"),
        after=tuple(_after(spec, assigned)),
        slots=dict(assigned.slots),
        refused_by=refused,
        warnings=(*(advice.remark_text(remark) for remark in advice.warnings(spec, target)), *extra),
    )


def text(plan: Plan) -> str:
    """The plan for people."""
    lines = [f"# {plan.vm} on {plan.host}"]
    lines += _section("before the start", [shlex.join(argv) for argv in plan.before])
    for name, body in plan.seed_files.items():
        lines += _section(f"{name} of the cloud-init seed", body.splitlines())
    if plan.loader:
        for name, body in plan.loader_files.items():
            lines += _section(name, body.splitlines())
        lines += _section("loader", [shlex.join(plan.loader)])
    lines += _section(f"bhyve -k bhyve.conf {plan.vm}, and bhyve.conf is", plan.config.splitlines())
    lines += _section("the same as a command line", [shlex.join(plan.command)])
    lines += _section("as soon as it has its PID", [shlex.join(("rctl", "-a", *plan.limits))] if plan.limits else [])
    lines += _section("after the run", [shlex.join(argv) for argv in plan.after])
    accepted = [str(target) for target in advice.TARGETS if str(target) not in plan.refused_by]
    lines += _section("accepted by", [", ".join(accepted) or "no release"])
    lines += _section("refused by", [f"{release}: {'; '.join(why)}" for release, why in plan.refused_by.items()])
    lines += _section("warnings", list(plan.warnings))
    return "\n".join(lines) + "\n"


def data(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    table: dict[str, Any] = msgspec.to_builtins(plan, enc_hook=enc_hook)
    return table


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"# {title}", *lines] if lines else []


def _has_password(spec: VmSpec) -> bool:
    return spec.graphics is not None and spec.graphics.password_file is not None


def _seed_files(spec: VmSpec, assigned: Assigned) -> dict[str, str]:
    if spec.cloud_init is None or not assigned.seed:
        return {}
    contents = seed.described(spec.cloud_init, REDACTED)
    files = seed.files(spec, contents, assigned.macs, slots.network_identities(spec))
    return {name: data.decode() for name, data in files.items()}


def _before(spec: VmSpec, assigned: Assigned, directory: str) -> Iterator[tuple[str, ...]]:
    """The host commands as a person would type them; the daemon's own are the same in effect, with more looking."""
    yield "kldload", "-n", "vmm"
    if any(port.mode in ("managed", "external") for port in spec.serial):
        yield "kldload", "-n", "nmdm"
    if vars_template(spec) and assigned.bootvars:
        yield "cp", "-n", vars_template(spec), assigned.bootvars
    for index, (identity, card) in enumerate(zip(slots.network_identities(spec), spec.network, strict=True)):
        interface = card.tap or card.vmnet or assigned.taps.get(identity)
        if interface is None:
            continue
        if card.wants_tap:
            yield "ifconfig", interface, "create"  # a call of its own: with more words it takes an existing tap over (contract 5.3)
            yield "ifconfig", interface, "description", f"vm-{spec.name}-{index}", "group", "bhyved"
        if card.bridge is not None:
            yield "ifconfig", str(card.bridge), "addm", interface
        yield "ifconfig", interface, "up"
    if spec.tpm is not None and spec.tpm.type == "swtpm":
        state = f"dir={directory}/tpm"
        yield "swtpm", "socket", "--tpm2", "--server", f"type=unixio,path={assigned.tpm_socket}", "--tpmstate", state
    if assigned.seed:
        yield seed.makefs(assigned.seed, f"{directory}/seed")
    yield "bhyvectl", f"--vm={spec.name}", "--destroy"


def _after(spec: VmSpec, assigned: Assigned) -> Iterator[tuple[str, ...]]:
    yield "bhyvectl", f"--vm={spec.name}", "--destroy"
    for tap in assigned.taps.values():
        yield "ifconfig", tap, "destroy"


def without_secrets(value: Any) -> Any:
    """A guest's configuration without passwords: `[bhyve] options` may hold one, as bhyve's own variables do."""
    if isinstance(value, dict):
        return {key: REDACTED if key.endswith("password") else without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(inner) for inner in value]
    return value
