"""The status page as HTML: a table that needs no script, and fragments of it for browsers that follow live.

Read-only and self-contained. Everything goes through `_e` on its way into the text: names come from files, reasons from bhyve's
stderr, console lines from guests, and none of them is trusted.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from urllib.parse import quote

from bhyved.core.ansi import plain
from bhyved.core.drain import Drain
from bhyved.core.exits import ExitKind
from bhyved.core.room import amount
from bhyved.core.status import Desired, Phase, RunRecord, VmStatus, frozen_text
from bhyved.core.units import span

_STYLE = (files("bhyved.daemon") / "page.css").read_text("utf-8")
_SCRIPT = (files("bhyved.daemon") / "page.js").read_text("utf-8")

HOUR_S = 3600.0
HOURS = 24
#: Ends that somebody or the guest itself meant; the rest is shown as trouble.
_MEANT = frozenset({ExitKind.REBOOT, ExitKind.POWEROFF, ExitKind.HALT, ExitKind.SUSPENDED, ExitKind.STOPPED_EARLY})


def _e(text: str) -> str:
    """Text as HTML, without what a terminal or a reader's eye would be led astray by."""
    return escape(plain(text))


def _hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


#: Nothing from elsewhere, nothing but our own script and style, nobody's frame.
POLICY = (
    f"default-src 'none'; script-src {_hashed(_SCRIPT)}; style-src {_hashed(_STYLE)}; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def document(title: str, body: str, *, refresh: bool = False) -> str:
    """A whole page. `refresh`: a browser without script asks again every ten seconds."""
    again = '<noscript><meta http-equiv="refresh" content="10"></noscript>' if refresh else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{_e(title)}</title>{again}'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


_HEAD = (
    f'<thead><tr><th>Guest<th>Phase<th>Reason<th class="n">Phase for<th class="n">Up for<th>Ends, {HOURS} h<th class="n">Restarts'
    '<th class="n">CPUs<th class="n">Memory</tr></thead>'
)


def overview(host: str, groups: Sequence[str], *, counts: str, stamp: str) -> str:
    """All guests. `stamp` is where a follower goes on from."""
    body = (
        f'<header><h1>{_e(host)}</h1><p id="counts">{counts}</p><p id="link" hidden></p></header><main>'
        f'<table id="guests" data-stamp="{_e(stamp)}">{_HEAD}{"".join(groups)}</table>'
        f'<p id="none"{" hidden" if groups else ""}>no guest is configured</p></main><script>{_SCRIPT}</script>'
    )
    return document(f"{host}: guests", body, refresh=True)


def counts(statuses: Sequence[VmStatus], drain: Drain | None) -> str:
    """Why the host is empty, and how many guests are where; trouble first."""
    found = [(phase, sum(status.phase is phase for status in statuses)) for phase in Phase]
    order = {Phase.HELD: 0, Phase.BACKOFF: 1, Phase.UP: 3, Phase.DOWN: 4}
    chips = sorted(((phase, count) for phase, count in found if count), key=lambda chip: order.get(chip[0], 2))
    ill = sum(bool(status.ill) for status in statuses)
    drained = "" if drain is None else f"drained {frozen_text(drain.by, drain.until_at, drain.reason)}"
    return " ".join(
        ([f'<span class="chip held">{_e(drained)}</span>'] if drained else [])
        + ([f'<span class="chip ill">{ill} ill</span>'] if ill else [])
        + [f'<span class="chip {phase}">{count} {phase}</span>' for phase, count in chips]
    )


def group(status: VmStatus, spark: str, now: datetime) -> str:
    """A guest's part of the table: its row, and room for what a click shows."""
    return f'<tbody data-vm="{_e(status.name)}">{row(status, spark, now)}</tbody>'


def row(status: VmStatus, spark: str, now: datetime) -> str:
    """One line."""
    notes = "".join(f'<span class="note{" ill" if note == "ill" else ""}">{_e(note)}</span>' for note in _notes(status))
    total = status.restarts.reboot + status.restarts.crash + status.restarts.start_failure
    causes = f"reboots {status.restarts.reboot}, crashes {status.restarts.crash}, failed starts {status.restarts.start_failure}"
    why = status.ill or status.waiting_for or status.reason
    up = "" if status.started_at is None else _since(status.started_at, now)
    return (
        f'<tr class="vm"><th scope="row"><a href="/vm/{quote(status.name, safe="")}">{_e(status.name)}</a>'
        f'<td><span class="chip {status.phase}">{status.phase}</span>{notes}<td class="why">{_e(why)}'
        f'<td class="n">{_since(status.since_at, now)}<td class="n">{up}<td>{spark}<td class="n" title="{causes}">{total}'
        f'<td class="n">{status.cpus}<td class="n">{amount(status.memory_bytes)}</tr>'
    )


def _notes(status: VmStatus) -> Iterable[str]:
    if status.desired is Desired.UP and status.phase in (Phase.DOWN, Phase.HELD):
        yield "wished up"
    if status.ill:
        yield "ill"
    if status.roomless:
        yield "waits for memory"
    if status.hold is not None:
        yield f"on hold {frozen_text(status.hold.by, status.hold.until_at, status.hold.reason)}"
    if status.phase is Phase.UP and not status.ready:
        yield "not ready"
    if status.config_changed:
        yield "restart for new settings"
    if status.stuck:
        yield "stuck"
    if status.attempts:
        yield status.attempts


def detail(sentences: Sequence[str], runs: Sequence[RunRecord], consoles: Sequence[tuple[str, str]]) -> str:
    """What a click shows: why, the last runs, the last console lines by port."""
    why = "".join(f"<p>{_e(sentence)}</p>" for sentence in sentences)
    lines = "".join(f"<h3>{_e(port)}</h3><pre>{_e(text) or '(nothing yet)'}</pre>" for port, text in consoles)
    return f'<div class="why">{why}</div>{_history(runs)}{lines}'


def _history(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return ""
    rows = "".join(
        f'<tr class="{"meant" if run.kind in _MEANT else "trouble"}"><td>{_moment(run.ended_at)}<td class="n">{span(run.uptime_s)}'
        f"<td>{_e(run.text)}{_hint(run)}<td>{_e(run.decision)}<td>{_e(run.by)}</tr>"
        for run in reversed(runs)
    )
    return (
        '<table class="runs"><thead><tr><th>Ended<th class="n">Ran for<th>How<th>What followed<th>Started by</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _hint(run: RunRecord) -> str:
    return f' <span class="note">{_e(run.hint)}</span>' if run.hint else ""


def guest(host: str, status: VmStatus, inner: str, spark: str, now: datetime) -> str:
    """One guest on a page of its own, for browsers without script and for links."""
    body = (
        f'<header><h1><a href="/">{_e(host)}</a> / {_e(status.name)}</h1></header><main><table>{_HEAD}{group(status, spark, now)}</table>'
        f'<section class="detail">{inner}</section></main>'
    )
    return document(f"{status.name} on {host}", body, refresh=True)


def sparkline(runs: Sequence[RunRecord], now: datetime) -> str:
    """Ended runs of the last day, a bar an hour; ends that nobody meant stand out."""
    meant, trouble = [0] * HOURS, [0] * HOURS
    for run in runs:
        hours = int((now - run.ended_at).total_seconds() // HOUR_S)
        if 0 <= hours < HOURS:
            (meant if run.kind in _MEANT else trouble)[HOURS - 1 - hours] += 1
    total = sum(meant) + sum(trouble)
    if not total:
        return ""
    unit = 18 / max(4, *(map(sum, zip(meant, trouble, strict=True))))
    bars = ""
    for place, (good, bad) in enumerate(zip(meant, trouble, strict=True)):
        if bad:
            bars += _bar("trouble", place, 0.0, bad * unit)
        if good:
            bars += _bar("meant", place, bad * unit, good * unit)
    base = f'<rect class="base" x="0" y="19.5" width="{HOURS * 4}" height="0.5"/>'
    said = f"{total} ended in {HOURS} hours, {sum(trouble)} of them not on purpose"
    size = f'viewBox="0 0 {HOURS * 4} 20" width="{HOURS * 4}" height="20"'
    return f'<svg class="spark" {size} role="img"><title>{said}</title>{base}{bars}</svg>'


def _bar(kind: str, place: int, below: float, height: float) -> str:
    return f'<rect class="{kind}" x="{place * 4}" y="{19 - below - height:.1f}" width="3" height="{height:.1f}"/>'


def _since(at: datetime, now: datetime) -> str:
    """In whole seconds, which page.js counts on in the same words."""
    lasted = span(max(0, int((now - at).total_seconds())))
    return f'<time data-since="{at.timestamp():.0f}" datetime="{at.isoformat(timespec="seconds")}">{lasted}</time>'


def _moment(at: datetime) -> str:
    return f'<time datetime="{at.isoformat(timespec="seconds")}">{at.strftime("%Y-%m-%d %H:%M:%S")} UTC</time>'
