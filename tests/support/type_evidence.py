"""Both sides of the wide tables after each way in which a value can come to the destination."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support import oracle
from tests.support.type_matrix import SETUP, TypeCase, WideTable, available, wide_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    import pyarrow as pa

    Connection = psycopg.Connection[tuple[object, ...]]
    OddCells = Counter[tuple[str, str, str, str]]

#: Rows of the second and third coming.
INSERTED, MOVED = 1000, 5000

#: The ways, in the order in which they are gone.
WAYS = ("snapshot", "insert", "update", "unchanged", "key", "delete")


@dataclass
class Evidence:
    """What source and destination held, by way and table, and the table of odd cells."""

    cases: tuple[TypeCase, ...] = field(repr=False)
    tables: tuple[str, ...]
    #: How many values of each table PostgreSQL keeps out of line.
    toasted: dict[str, int]
    sides: dict[tuple[str, str], tuple[oracle.SourceRows, pa.Table]] = field(
        default_factory=dict, repr=False
    )
    odd: dict[str, tuple[OddCells, OddCells]] = field(default_factory=dict, repr=False)

    def differences(self, case: TypeCase) -> Iterator[str]:
        """What differs in the columns of a case, on any way, in any table."""
        for (way, table), (source, stored) in self.sides.items():
            names = {case.name, f"{case.name}_array"}
            if names & {column.name for column in source.columns}:
                for found in oracle.differences(source, stored, {"id", *names}):
                    yield f"{way}, table {table}: {found}"


def gather(connection: Connection, run: Callable[[str], object], lake: oracle.Lake) -> Evidence:
    """Send every value through the product by every way; `run` runs one of its commands."""
    connection.execute(SETUP.encode())
    cases = available(connection)
    major = connection.info.server_version // 10_000
    types, *others = wide_tables(cases, major)
    heap = WideTable("heap", types.cases, types.types)
    keyed = (types, *others)
    for table in keyed:
        connection.execute(table.create().encode())
    connection.execute(f"{heap.create(key='')} ALTER TABLE heap REPLICA IDENTITY FULL".encode())
    evidence = Evidence(cases, tuple(table.name for table in (*keyed, heap)), {})
    source = oracle.Source(connection)
    for way in WAYS:
        for table in (*keyed, heap):
            _go(connection, way, table, major)
        run("snapshot" if way == "snapshot" else "cdc")
        expected: OddCells = Counter()
        for name in evidence.tables:
            rows = source.read(name)
            evidence.sides[way, name] = rows, lake.read(name)
            expected += oracle.odd_cells(rows, name)
        evidence.odd[way] = expected, oracle.recorded_cells(lake)
    evidence.toasted = {name: _out_of_line(connection, name) for name in evidence.tables}
    return evidence


def _out_of_line(connection: Connection, table: str) -> int:
    query = "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = %s::regclass"
    ((toast,),) = connection.execute(query, [table])
    ((count,),) = connection.execute(f"SELECT count(DISTINCT chunk_id) FROM {toast}".encode())
    return int(str(count))


def _go(connection: Connection, way: str, table: WideTable, major: int) -> None:
    name = table.name
    match way:
        case "snapshot":
            table.insert(connection, major, 0)
        case "insert":
            # Without a key the same rows again: copies are counted.
            table.insert(connection, major, 0 if name == "heap" else INSERTED)
        case "update":
            assigned = ", ".join(f'"{column}" = s."{column}"' for column in table.columns)
            connection.execute(
                f"UPDATE {name} AS t SET {assigned} FROM {name} AS s WHERE s.id = t.id + 1".encode()
            )
        case "unchanged":
            connection.execute(f"UPDATE {name} SET n = n + 1".encode())
        case "key":
            connection.execute(f"UPDATE {name} SET id = id + {MOVED} WHERE id % 2 = 1".encode())
        case "delete":
            one = f"SELECT min(ctid) FROM {name} GROUP BY id" if name == "heap" else ""
            where = f"ctid IN ({one})" if one else "id % 3 = 0"
            connection.execute(f"DELETE FROM {name} WHERE {where}".encode())
