"""The outcome of each receipt, in the words of `pgbronze runs`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from entrypoints.output.runs import show_runs
from tests.contracts.run_log_contract import FULL

if TYPE_CHECKING:
    import pytest


def outcomes(
    receipts: list[tuple[str, int, int | None, timedelta]], capsys: pytest.CaptureFixture[str]
) -> list[str]:
    now = datetime.now(UTC)
    show_runs(
        [
            replace(FULL, run_id=run, seq=seq, exit_code=code, error=None, ended_at=now - age)
            for run, seq, code, age in receipts
        ]
    )
    words = ("running", "unknown (killed?)", "done", "exit 3")
    lines = capsys.readouterr().out.splitlines()
    return [word for line in lines for word in words if word in line]


def test_a_receipt_without_exit_code_is_of_a_run_that_may_have_been_killed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    found = outcomes(
        [
            ("d", 0, None, minute),
            ("c", 1, 3, 2 * minute),
            ("c", 0, None, hour),
            ("b", 0, 0, hour),
            ("a", 1, None, 2 * hour),
            ("a", 0, None, 3 * hour),
        ],
        capsys,
    )
    assert found == ["running", "exit 3", "running", "done", "unknown (killed?)", "running"]
