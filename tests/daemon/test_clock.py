"""The wall clock jumps: nothing that is measured notices, and what has an end by the calendar does not end too soon."""

from datetime import timedelta

import pytest
import trio

from bhyved.core.lifecycle import SetHold
from bhyved.core.spec import Restart, Stop
from bhyved.core.status import Hold, Phase
from bhyved.core.units import Duration
from tests.daemon.fakehost import Life
from tests.daemon.guestkit import guest, lab

DAY_S = 86_400.0


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, 40 * 365 * DAY_S])
async def test_back_off_and_limits_do_not_notice(autojump_clock: trio.abc.Clock, jump_s: float) -> None:
    """A crash after each jump: the same delays, the same count, the same end."""
    restart = Restart(crash_limit=Restart().crash_limit.parse("3 in 10m"), backoff=Duration(2))
    async with lab(guest(autostart=True, restart=restart)) as it:
        it.machine().lives = [Life(after_s=1.0, status=4)]
        for crash in range(1, 4):
            await it.ran(crash)
            it.host.jumped_s += jump_s
        await it.phase(Phase.HELD)

        assert it.machine().times("spawn") == pytest.approx([0, 3, 8, 17], abs=0.2)
        assert [record.uptime_s for record in it.journal.records] == pytest.approx([1.0] * 4, abs=0.1)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
async def test_a_stop_takes_as_long_as_it_may(autojump_clock: trio.abc.Clock, jump_s: float) -> None:
    """The timeout of a deaf guest is neither cut nor stretched."""
    async with lab(guest(autostart=True, stop=Stop(timeout=Duration(60)))) as it:
        it.machine().lives = [Life(acpi_s=None)]
        await it.phase(Phase.UP)
        it.stop()
        await it.phase(Phase.STOPPING)
        it.host.jumped_s = jump_s
        await it.phase(Phase.DOWN)

        assert it.machine().times("force poweroff")[0] - it.machine().times("press")[0] == pytest.approx(60, abs=0.1)


async def test_a_hold_until_a_time_does_not_end_before_it(autojump_clock: trio.abc.Clock) -> None:
    """The clock is set back while it lasts: it ends when the clock says so, and not when it would have."""
    async with lab(guest(autostart=True)) as it:
        await it.phase(Phase.UP)
        until_at = it.host.utc() + timedelta(hours=1)
        it.guests.submit("web1", SetHold(hold=Hold(by="alice", since_at=it.host.utc(), until_at=until_at)))
        it.host.jumped_s = -7200.0
        await trio.sleep(2 * 3600)
        assert it.status().hold is not None
        await trio.sleep(3700)

        assert it.status().hold is None
        assert it.host.utc() >= until_at
