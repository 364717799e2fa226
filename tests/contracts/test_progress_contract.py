"""The contract of `Progress` on everything that shows progress, and on the fake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.fakes import RecordedProgress
from cdc_core.ports.progress import Progress, SilentProgress
from entrypoints.output.progress import LineProgress, TerminalProgress

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = st.sampled_from(["public.a", "public.b", 'odd."[/bold] näme'])
COUNTS = st.integers(0, 10**12)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("table_started"), TABLES, COUNTS),
        st.tuples(st.just("rows_read"), TABLES, COUNTS),
        st.tuples(st.just("table_finished"), TABLES),
        st.tuples(st.just("batch_loaded"), COUNTS, COUNTS, COUNTS),
        st.tuples(st.just("note"), st.sampled_from(["a note", "100 % of [x]", "%s {}"])),
        st.tuples(st.just("warn"), st.sampled_from(["careful", "[/red] %d"])),
    ),
    max_size=12,
)


@pytest.mark.parametrize(
    "progress_of", [SilentProgress, LineProgress, TerminalProgress, RecordedProgress]
)
@settings(max_examples=40)
@given(calls=CALLS)
def test_any_order_of_calls_is_taken(
    progress_of: Callable[[], Progress], calls: list[tuple[str, object]]
) -> None:
    progress = progress_of()
    try:
        for name, *arguments in calls:
            assert getattr(progress, name)(*arguments) is None
    finally:
        if isinstance(progress, TerminalProgress):
            progress.__exit__()


def test_what_was_told_is_kept() -> None:
    progress = RecordedProgress()
    progress.table_started("t", 5)
    progress.note("n")
    progress.warn("w")
    assert progress.calls == [("table_started", ("t", 5))]
    assert (progress.notes, progress.warnings) == (["n"], ["w"])
