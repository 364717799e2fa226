"""The contract of `Clock` on the system's clock and on the fake."""

from __future__ import annotations

import pytest

from adapters.fakes import ManualClock
from cdc_core.ports.clock import Clock, SystemClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock(5.0)], ids=["system", "manual"])
def test_time_never_goes_back_and_sleeping_lets_it_pass(clock: Clock) -> None:
    before = clock.monotonic()
    for seconds in (0.0, 1 / 512, 0.0, 1 / 256):
        clock.sleep(seconds)
        now = clock.monotonic()
        assert now - before >= seconds
        before = now


def test_the_manual_clock_stands_until_it_is_moved() -> None:
    clock = ManualClock()
    assert clock.monotonic() == clock.monotonic() == 0.0
    clock.pass_time(1.5)
    clock.pass_time(-1.0)
    clock.sleep(0.25)
    assert clock.monotonic() == 1.75
    assert clock.sleeps == [0.25]
