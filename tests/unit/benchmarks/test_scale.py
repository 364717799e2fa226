"""The page on scale has the tables that its calculation prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.document import RESULTS
from benchmarks.figures import read_report

PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "scale.md"
RATES = scale.Rates.of(read_report(RESULTS))


@pytest.mark.parametrize("table", [scale.one_process, scale.loads, scale.slots])
def test_the_page_has_the_table(table):
    assert "\n".join(table(RATES)) in PAGE.read_text()


def test_the_slowest_part_is_the_limit():
    source = scale.Source(disk=100, network=200, cores=4)
    rates = replace(RATES, server=30, worker=10, driver=60)
    found = scale.limits(rates, source, 8, by_driver=True)
    assert found == {
        "workers": 80, "source's disk": 100, "network": 200, "source's cores": 120, "driver": 60,
    }  # fmt: skip
    assert "driver" not in scale.limits(rates, source, 8, by_driver=False)


def test_a_slot_more_never_costs_the_source_less():
    rows = [line.split(" | ") for line in scale.slots(RATES)][2:]
    costs = [float(row[2].rstrip(" |")) for row in rows]
    assert costs == sorted(costs)
    assert costs[-1] == pytest.approx(8 * costs[0], rel=0.05)
