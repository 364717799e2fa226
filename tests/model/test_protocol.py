"""Every reachable state of the model for three commits; and each guard, taken away, is missed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from minicheck import check_liveness, check_safety

from tests.model.protocol import ALL, GUARDS, INVARIANTS, Guard, Model

if TYPE_CHECKING:
    from minicheck import Protocol

MOST_STATES = 1_000_000

#: What breaks without a guard, and the last step of the shortest way there.
BROKEN: dict[Guard, tuple[str, str]] = {
    # A killed run's merge runs late, after the other run has ended.
    "lock": ("same as the source", "late: merge (0, 1] into table 0"),
    # A killed full load's replacement runs late, over the rows of the next one.
    "clean": ("same as the source", "0: snapshot ends"),
    # A repeated copy of a merge brings back a row that was deleted since.
    "remove": ("same as the source", "0: cdc ends"),
    # A batch that was applied before its run was killed is read again, cut elsewhere.
    "lsn": ("rows go forward", "0: merge (0, 1] into table 0"),
    "checkpoint last": ("same as the source", "0: cdc ends"),
    "confirm last": ("slot behind the data", "0: reads up to 1"),
    "continuity": ("same as the source", "0: cdc ends"),
    "export": ("same as the source", "0: snapshot ends"),
}


def test_no_reachable_state_breaks_an_invariant() -> None:
    found = check_safety(Model().protocol(), MOST_STATES)
    assert found["exhaustive"]
    assert found["reachable_states"] > 50_000
    holds = {name: each["holds"] for name, each in found["properties"].items()}
    assert holds == dict.fromkeys(INVARIANTS, True)


def test_running_again_is_always_the_cure() -> None:
    """From every reachable state, further runs can bring the tables up to date."""
    found = check_liveness(Model(commits=2).protocol())
    assert found["holds"] is True, found


@pytest.mark.parametrize("guard", GUARDS)
def test_each_guard_is_needed(guard: Guard) -> None:
    assert {*BROKEN} == {*GUARDS}
    invariant, last_step = BROKEN[guard]
    model = until_broken(Model(ALL - {guard}, commits=2).protocol(), invariant)
    found = check_safety(model, MOST_STATES)["properties"][invariant]
    assert found["holds"] is False
    labels = [step["label"] for step in found["counterexample"]]
    assert labels[-1] == last_step, "\n".join(map(str, labels))


def until_broken(protocol: Protocol, invariant: str) -> Protocol:
    """The protocol that ends where the invariant is broken: the shortest trace is all we want."""
    holds = protocol.invariants[invariant]
    broken: list[tuple[Any, ...]] = []

    def transitions(state: tuple[Any, ...]) -> list[tuple[str, tuple[Any, ...]]]:
        if broken or not holds(protocol.d(state)):
            broken.append(state)
            return []
        steps: list[tuple[str, tuple[Any, ...]]] = protocol.transitions(state)
        # The trace is found when the state is reached; nothing else need be.
        broken.extend(after for _, after in steps if not holds(protocol.d(after)))
        return steps

    return replace(protocol, transitions=transitions, invariants={invariant: holds})
