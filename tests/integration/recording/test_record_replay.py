"""`record` and `replay` through the real command: the hard cases, as a run without the source."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support import oracle
from tests.support.hard_cases import CASES, ROUNDS, HardCase
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess

if TYPE_CHECKING:
    import pyarrow as pa

    from tests.support.postgres import Server

STATE = """
SELECT (SELECT array_agg(slot_name || confirmed_flush_lsn::text) FROM pg_replication_slots
        WHERE database = current_database()),
  (SELECT array_agg(prrelid ORDER BY prrelid) FROM pg_publication_rel),
  (SELECT array_agg(oid::text || xmin::text) FROM pg_publication)
"""


#: How many of the two kinds of recordings are made of each round.
RECORDED = [2, 1, *[0] * ROUNDS]
OPTIONS = {"plain": [], "masked": ["--mask"]}


class Replay(InProcess):
    """`replay` on a machine that has no settings of a source."""

    def __init__(self, lake: LocalLake) -> None:
        super().__init__("", lake)
        kept = {k: v for k, v in self.environment.items() if not k.startswith("SOURCES__")}
        self.environment = kept


@dataclass
class Lived:
    """What differed after each round, by case's title; empty where it was equal."""

    differences: dict[str, list[str]] = field(default_factory=dict)
    #: As above, of the masked recording: only what a permutation of values cannot change.
    masked: dict[str, list[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def lived(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """All cases lived through together; each round is recorded, replayed elsewhere, then run."""
    folder = tmp_path_factory.mktemp("recorded")
    lake, found = LocalLake("duckdb", folder), Lived()
    with (
        postgres.database() as dsn,
        psycopg.connect(dsn, autocommit=True) as sql,
        psycopg.connect(dsn, autocommit=True) as reading,
    ):
        pipeline = InProcess(dsn, lake, SOURCES__PG_REPLICATION__BATCH_MAX_ROWS="400")
        for case in CASES:
            sql.execute(case.setup.encode())
        pipeline.run("snapshot")
        for number in range(ROUNDS):
            for case in CASES:
                if number < len(case.rounds):
                    for transaction in case.rounds[number].transactions:
                        sql.execute(transaction.encode())
            before = sql.execute(STATE.encode()).fetchone()
            replays = {}
            for kind in ("plain", "masked")[: RECORDED[number]]:
                file = folder / f"{number}.{kind}"
                pipeline.run("record", str(file), "--rows", *OPTIONS[kind])
                replays[kind] = LocalLake("duckdb", tmp_path_factory.mktemp(kind))
                Replay(replays[kind]).run("replay", str(file))
            assert sql.execute(STATE.encode()).fetchone() == before
            source = oracle.Source(reading)
            for case in CASES:
                found.differences.setdefault(case.title, [])
                found.masked.setdefault(case.title, [])
                for table in _tables(case, number) if replays else ():
                    replayed = replays["plain"].read(table)
                    told = oracle.differences(source.read(table), replayed)
                    where = f"round {number + 1}, table {table}"
                    found.differences[case.title] += [f"{where}: {text[:300]}" for text in told]
                    if "masked" in replays:
                        other = replays["masked"].read(table)
                        if _frequencies(replayed) != _frequencies(other):
                            found.masked[case.title].append(where)
            pipeline.run("cdc")
    return found


def _frequencies(rows: pa.Table) -> dict[str, list[int]]:
    """How often each value of a column occurs, of every column."""
    found = {}
    for name in rows.column_names:
        if not name.startswith(("_cdc_", "_dlt_")):
            counts = Counter(map(str, rows.column(name).to_pylist()))
            found[name] = [counts.pop("None", 0), *sorted(counts.values())]
    return found


def _tables(case: HardCase, number: int) -> tuple[str, ...]:
    if number >= len(case.rounds):
        return ()
    return case.rounds[number].tables or case.tables


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}: {case.title}")
def test_the_replay_equals_the_source(lived: Lived, case: HardCase) -> None:
    assert not lived.differences[case.title], "\n".join(lived.differences[case.title][:10])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}: {case.title}")
def test_masked_values_are_equal_where_the_originals_are(lived: Lived, case: HardCase) -> None:
    assert not lived.masked[case.title], "\n".join(lived.masked[case.title][:10])
