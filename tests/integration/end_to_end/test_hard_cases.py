"""The hard cases through the real command: after every run the destination equals the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import oracle
from tests.support.hard_cases import CASES, ROUNDS, HardCase
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    from tests.support.postgres import Server


@dataclass
class Lived:
    """What differed after each round, by case's title; empty where it was equal."""

    differences: dict[str, list[str]] = field(default_factory=dict)


#: A batch of few rows cuts between the transactions of a case; a large one holds them together.
@pytest.fixture(
    scope="module", params=[("duckdb", "400"), ("delta", "1000000")], ids=["duckdb", "delta"]
)
def lived(
    request: pytest.FixtureRequest, postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Lived:
    """All cases lived through together, so that each is also the others' neighbour."""
    kind, rows = request.param
    lake = LocalLake(kind, tmp_path_factory.mktemp("hard"))
    found = Lived()
    with (
        postgres.database() as dsn,
        psycopg.connect(dsn, autocommit=True) as sql,
        psycopg.connect(dsn, autocommit=True) as reading,
    ):
        pipeline = InProcess(dsn, lake, SOURCES__PG_REPLICATION__BATCH_MAX_ROWS=rows)
        for case in CASES:
            sql.execute(case.setup.encode())
        pipeline.run("snapshot")
        for number in range(ROUNDS):
            for case in CASES:
                if number < len(case.rounds):
                    for transaction in case.rounds[number].transactions:
                        sql.execute(transaction.encode())
            pipeline.run("cdc")
            source = oracle.Source(reading)
            for case in CASES:
                differing = found.differences.setdefault(case.title, [])
                differing += _differing(case, number, source, lake)
    return found


def _differing(case: HardCase, number: int, source: oracle.Source, lake: LocalLake) -> list[str]:
    if number >= len(case.rounds):
        return []
    done = case.rounds[: number + 1]
    found = []
    for table in case.rounds[number].tables or case.tables:
        rows, stored = source.read(table), lake.read(table)
        told = list(oracle.differences(rows, stored))
        told += [
            f"unexpected column {name}"
            for name in oracle.unexpected_columns(
                rows, stored, [name for each in done for name in each.dropped]
            )
        ]
        found += [f"round {number + 1}, table {table}: {text[:300]}" for text in told]
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}: {case.title}")
def test_the_destination_equals_the_source(lived: Lived, case: HardCase) -> None:
    found = lived.differences[case.title]
    assert not found, "\n".join(found[:10])
