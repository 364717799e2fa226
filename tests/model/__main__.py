"""Check the models: `python -m tests.model` searches every reachable state, then takes away each
guard in turn and prints the shortest way to what goes wrong without it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from minicheck import check_liveness, check_safety

from tests.model import full_load, snapshot_guards, stream

if TYPE_CHECKING:
    from collections.abc import Mapping

MODELS: Mapping[str, tuple[Any, Mapping[str, str]]] = {
    "stream": (stream.Stream, stream.GUARDS),
    "full load": (full_load.FullLoad, full_load.GUARDS),
    "sessions of a snapshot": (snapshot_guards.SnapshotSessions, snapshot_guards.GUARDS),
}
MOST, ENOUGH = 1_000_000, 40_000


def main() -> int:
    failed = False
    for name, (model, guards) in MODELS.items():
        began = time.monotonic()
        protocol = model().protocol()
        found = check_safety(protocol, max_states=MOST)
        wrong = [p for p, result in found["properties"].items() if not result["holds"]]
        cured = check_liveness(protocol)["holds"]
        failed |= bool(wrong) or not cured or not found["exhaustive"]
        print(
            f"{name}: {found['reachable_states']} states, all of them: {found['exhaustive']}, "
            f"{time.monotonic() - began:.1f} s"
        )
        for promise in found["properties"]:
            print(f"  {'FAILS' if promise in wrong else 'holds'}: {promise}")
        print(f"  {'holds' if cured else 'FAILS'}: the work can always be finished")
        for guard, harm in guards.items():
            failed |= not without(model, guard, harm)
    return int(failed)


def without(model: Any, guard: str, harm: str) -> bool:
    """Print the shortest trace to a violation without this guard; False if there is none."""
    found = check_safety(model(guard).protocol(), max_states=ENOUGH)
    traces = [
        (promise, [step["label"] for step in result["counterexample"][1:]])
        for promise, result in found["properties"].items()
        if result["holds"] is False
    ]
    if not traces:
        print(f"  NOT NEEDED: {guard}")
        return False
    promise, trace = min(traces, key=lambda each: len(each[1]))
    print(f"  without {guard!r} {harm}; {promise!r} fails after:")
    print("    " + ", ".join(trace))
    return True


if __name__ == "__main__":
    sys.exit(main())
