"""A row's text against the row itself."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bhyved.core.exits import ExitKind
from bhyved.core.rowtext import RowText
from bhyved.core.status import Hold, LastExit, Phase, Restarts, VmStatus, row

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: What a template of bytes, and a search for keys, could stumble over.
WORDS = st.one_of(st.text(max_size=20), st.sampled_from(['"phase_s":null', "%s %.3f %%", '\\"uptime_s\\":null,', '"next_start_in_s":null']))
MOMENTS = st.floats(0, 1e7)

STATUSES = st.builds(
    VmStatus,
    name=WORDS,
    phase=st.sampled_from(Phase),
    since=MOMENTS,
    since_at=st.just(NOON),
    reason=WORDS,
    hold=st.none() | st.builds(Hold, by=WORDS, reason=WORDS, since_at=st.just(NOON)),
    pid=st.none() | st.integers(1, 99_999),
    started=st.none() | MOMENTS,
    next_start=st.none() | MOMENTS,
    restarts=st.builds(Restarts, reboot=st.integers(0, 9)),
    last_exit=st.none() | st.builds(LastExit, kind=st.sampled_from(ExitKind), at=st.just(NOON), text=WORDS),
    attempts=WORDS,
    taps=st.lists(WORDS, max_size=2).map(tuple),
)


@given(STATUSES, st.lists(MOMENTS, min_size=1, max_size=3))
def test_the_text_is_the_row(status, moments):
    """At every moment the text decodes to what the row says, whatever words are in it."""
    text = RowText(status)

    for now in moments:
        found, wanted = msgspec.json.decode(text.at(now)), msgspec.json.decode(msgspec.json.encode(row(status, now)))
        assert list(found) == list(wanted)
        for key in ("uptime_s", "phase_s", "next_start_in_s"):
            assert found.pop(key) == (None if wanted[key] is None else pytest.approx(wanted[key], abs=0.0011))
            del wanted[key]
        assert found == wanted
