"""Reading a destination as a stranger would, and comparing it with the source cell by cell."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.support.workload import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg


@dataclass(frozen=True)
class LocalLake:
    """A DuckDB file or a folder of Delta tables, by `kind`."""

    kind: str
    path: Path

    @property
    def environment(self) -> dict[str, str]:
        settings = {"PIPELINE__DESTINATION": self.kind}
        if self.kind == "duckdb":
            settings["DESTINATION__DUCKDB__CREDENTIALS"] = str(self.path / "lake.duckdb")
        else:
            settings["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(self.path / "lakehouse")
        return settings

    def rows(self, table: str, *columns: str) -> list[tuple[object, ...]]:
        import duckdb

        if self.kind == "duckdb":
            with duckdb.connect(str(self.path / "lake.duckdb"), read_only=True) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                listed = ", ".join(f'"{name}"' for name in columns)
                return connection.execute(f'SELECT {listed} FROM bronze."{table}"').fetchall()
        from deltalake import DeltaTable

        delta = DeltaTable(self.path / "lakehouse" / "bronze" / table)
        stored = delta.to_pyarrow_dataset().to_table(columns=list(columns))
        lists = [stored.column(name).to_pylist() for name in columns]
        return list(zip(*lists, strict=True))


def assert_equal(connection: psycopg.Connection[tuple[object, ...]], lake: LocalLake) -> None:
    """Every table of the workload, as multisets of rows."""
    connection.execute("SET TimeZone = 'UTC'")
    for table, selected in COLUMNS.items():
        expressions = selected.split()
        names = [expression.split("::")[0].split("(")[-1].rstrip(")") for expression in expressions]
        wanted = connection.execute(f"SELECT {', '.join(expressions)} FROM {table}").fetchall()
        found = lake.rows(table, *names)
        missing = Counter(map(_plain, wanted)) - Counter(map(_plain, found))
        extra = Counter(map(_plain, found)) - Counter(map(_plain, wanted))
        assert not missing, f"{table}: missing {missing}"
        assert not extra, f"{table}: extra {extra}"


def _plain(row: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_value(value) for value in row)


def _value(value: object) -> object:
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, memoryview | bytearray):
        return bytes(value)
    if isinstance(value, str) and value[:1] == "[":
        return value.replace(" ", "")
    return value
