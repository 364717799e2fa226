"""The model holds in every reachable state; without any of its guards it does not; and the code
does what the model does."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from minicheck import check_liveness, check_safety

from adapters.fakes import InMemorySource
from adapters.fakes import destination as fake_destination
from adapters.fakes import history as fake_history
from adapters.fakes import merges as fake_merges
from cdc_core.use_cases import stream_changes
from tests.model import full_load, snapshot_guards
from tests.model.replay import Mismatch, Replay
from tests.model.stream import GUARDS, State, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    Trace = list[tuple[str, State]]

#: More states than a model has, and those in which a violation must be found.
ALL, ENOUGH = 500_000, 40_000
#: The commits that a model needs to fail without a guard.
FEW = 3


@cache
def shortest_traces(guard: str) -> dict[str, Trace]:
    """For each invariant that fails without this guard, the shortest trace to a violation."""
    found = check_safety(Stream(guard, commits=FEW).protocol(), max_states=ENOUGH)
    return {
        name: [(step["label"], State(**step["state"])) for step in result["counterexample"][1:]]
        for name, result in found["properties"].items()
        if result["holds"] is False
    }


def test_every_reachable_state_keeps_every_promise() -> None:
    found = check_safety(Stream(commits=4).protocol(), max_states=ALL)
    assert found["exhaustive"]
    assert found["reachable_states"] > 20_000
    assert [name for name, result in found["properties"].items() if not result["holds"]] == []


def test_running_again_always_cures() -> None:
    """From every reachable state runs can lead to one in which all is loaded."""
    assert check_liveness(Stream(commits=FEW).protocol())["holds"]


@pytest.mark.parametrize("guard", GUARDS)
def test_no_guard_can_be_spared(guard: str) -> None:
    traces = shortest_traces(guard)
    assert traces, f"the model does not need it: {guard}"
    assert all(3 < len(trace) < 20 for trace in traces.values())


@pytest.mark.parametrize("seed", range(150))
def test_the_code_does_what_the_model_does(seed: int) -> None:
    chance, model = random.Random(seed), Stream(commits=4)
    state, trace = State(history=(0,) * 4), []
    for _ in range(45):
        steps = list(model.steps(state))
        if not steps:
            break
        label, state = chance.choice(steps)
        trace.append((label, state))
    Replay().follow(trace)


# The same guards taken out of the code: it then does what the broken model does.


def merge_without_guard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fake_merges, "_lsn", lambda row: 0)


def append_twice(patch: pytest.MonkeyPatch) -> None:
    append = fake_history.append_to_log

    def blind(log: list[Any], table: Any, step: Any) -> None:
        new: list[Any] = []
        append(new, table, step)
        log += new

    patch.setattr(fake_destination, "append_to_log", blind)


def write_without_lock(patch: pytest.MonkeyPatch) -> None:
    def enter(self: InMemorySource) -> InMemorySource:
        self._opened = True
        return self

    patch.setattr(InMemorySource, "__enter__", enter)


def follow_any_slot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stream_changes, "continuity_break", lambda *args: None)


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a merge skips rows with a newer _cdc_lsn": merge_without_guard,
    "history is unique by _sort_by": append_twice,
    "one writer holds the lock": write_without_lock,
    "slot and checkpoint are compared": follow_any_slot,
}


@pytest.mark.parametrize("guard", BROKEN)
def test_code_without_a_guard_follows_the_trace_to_the_violation(
    guard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = shortest_traces(guard)
    for trace in traces.values():
        with pytest.raises((Mismatch, AssertionError)):
            Replay().follow(trace)  # the code has the guard
    BROKEN[guard](monkeypatch)
    for trace in traces.values():
        Replay().follow(trace)


def test_a_late_statement_after_a_newer_one_is_what_removing_files_prevents() -> None:
    """Nothing in a statement guards against this; so the server must not be able to run it."""
    for trace in shortest_traces("a run removes the files of dead runs").values():
        Replay(sweeps=False).follow(trace)


# The other models.


@pytest.mark.parametrize(
    ("model", "guards"),
    [
        (full_load.FullLoad, full_load.GUARDS),
        (snapshot_guards.SnapshotSessions, snapshot_guards.GUARDS),
    ],
    ids=["full load", "guards of a snapshot"],
)
def test_a_full_load_is_of_one_moment(model: Any, guards: dict[str, str]) -> None:
    found = check_safety(model().protocol(), max_states=ALL)
    assert found["exhaustive"]
    assert all(result["holds"] for result in found["properties"].values())
    assert check_liveness(model().protocol())["holds"]
    for guard in guards:
        broken = model(guard).protocol()
        found = check_safety(broken, max_states=ENOUGH)
        holds = all(result["holds"] for result in found["properties"].values())
        assert not (holds and check_liveness(broken)["holds"]), guard
