"""What the mutants of each file have shown, function by function, in `mutation.json`.

A result counts for a function as long as its code is the same. Comments and docstrings may change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.mutation.mutants import functions, mutants

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.mutation.mutants import FunctionSource, Mutant

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("mutation.json")

_FOLD = (
    "tests/unit/cdc_core/fold/test_fold.py",
    "tests/unit/cdc_core/fold/test_multi_part_batch.py",
)
#: The unit tests of each file, and the least share of mutants that they must notice, in percent.
FILES: Mapping[str, tuple[Sequence[str], int]] = {
    "src/adapters/dlt_destination/sql/merge_sql.py": (
        ("tests/unit/adapters/dlt_destination/test_merge_sql.py",),
        90,
    ),
    "src/cdc_core/fold/fold.py": (_FOLD, 90),
    "src/cdc_core/fold/layout.py": (("tests/unit/cdc_core/fold/test_layout.py",), 90),
    "src/cdc_core/slot/continuity.py": (("tests/unit/cdc_core/slot/test_continuity.py",), 90),
    "src/cdc_core/tables/message_columns.py": (
        (
            "tests/unit/cdc_core/tables/test_schema_change.py",
            "tests/unit/cdc_core/tables/test_resolve_columns.py",
        ),
        90,
    ),
    "src/cdc_core/tables/schema_change.py": (
        (
            "tests/unit/cdc_core/tables/test_schema_change.py",
            "tests/unit/cdc_core/tables/test_resolve_columns.py",
            "tests/unit/cdc_core/tables/test_table_rules.py",
        ),
        90,
    ),
}

#: Why a mutant that no test notices does no harm: by file, and a part of its description.
EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "src/adapters/dlt_destination/sql/merge_sql.py": {
        "True becomes False in": "both sides always have the same number of expressions",
    },
    "src/cdc_core/slot/continuity.py": {},
    "src/cdc_core/tables/message_columns.py": {
        "the statement is gone in `break`": "the search goes on without a result",
        "count=min(count, 2)": "two ways are already too many",
    },
    "src/cdc_core/tables/schema_change.py": {
        "return order.index(new) > order.index(old)": "equal types are answered before",
        "new.precision >= old.precision": "equal types are answered before",
    },
    "src/cdc_core/fold/fold.py": {
        "`and` becomes `or` in `if not (masks": "the general way has the same result",
        "has_hops=len(hops.events) > 0": "a row with hops has at least two",
        "`Gt` becomes `GtE` in `return last if": "indexes are unique, so none equals the next",
        "in `if len(indexes) and int(indexes[-1])": (
            "the fast way is not taken; the other one has the same result"
        ),
    },
}


@dataclass(frozen=True)
class FileScore:
    """The stored result of a file."""

    mutants: int
    #: Each mutant that no test noticed, with the reason why it does no harm.
    survivors: Mapping[str, str]

    @property
    def noticed(self) -> int:
        return self.mutants - len(self.survivors)

    @property
    def percent(self) -> int:
        return 100 * self.noticed // self.mutants if self.mutants else 0


def module_of(file: str) -> str:
    return file.removeprefix("src/").removesuffix(".py").replace("/", ".")


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return found


def score(file: str) -> FileScore:
    count, survivors = 0, {}
    reasons = EXPLAINED.get(file, {})
    for name, result in stored().get(file, {}).items():
        count += result["mutants"]
        for change in result["survivors"]:
            described = f"{name}: {change}"
            survivors[described] = next(
                (why for part, why in reasons.items() if part in described), ""
            )
    return FileScore(count, survivors)


def stale(file: str) -> list[FunctionSource]:
    """The functions whose result is of other code, or that have none."""
    results = stored().get(file, {})
    return [
        function
        for function in functions(ROOT / file)
        if results.get(function.name, {}).get("hash") != function.hash
    ]


def sample(file: str, chosen: Sequence[FunctionSource], size: int, results: Any) -> None:
    """Run a few mutants of these functions, evenly spread; put how many ran and how many were
    noticed into the queue `results`. Nothing is stored."""
    from tests.mutation.runner import run_mutants

    every = [mutant for function in chosen for mutant in mutants(ROOT / file, function)]
    few = every[:: max(1, -(-len(every) // size))]
    runner = run_mutants(module_of(file), few, FILES[file][0])
    results.put((len(few), len(few) - len(runner.survivors)))


def measure(file: str, chosen: Sequence[FunctionSource]) -> None:
    """Run the mutants of these functions and store the result."""
    from tests.mutation.runner import run_mutants

    every: list[Mutant] = []
    counts = {}
    for function in chosen:
        own = list(mutants(ROOT / file, function))
        counts[function.name] = len(own)
        every += own
    runner = run_mutants(module_of(file), every, FILES[file][0])
    results = stored()
    names = {function.name for function in functions(ROOT / file)}
    kept = {name: old for name, old in results.get(file, {}).items() if name in names}
    for function in chosen:
        kept[function.name] = {
            "hash": function.hash,
            "mutants": counts[function.name],
            "survivors": [m.change for m in runner.survivors if m.name == function.name],
        }
    results[file] = dict(sorted(kept.items()))
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
