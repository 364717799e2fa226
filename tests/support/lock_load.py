"""A full load beside an application and migrations, on a server with a small lock table.

`python -m tests.support.lock_load --tables 500 --indexes 17` prints what was measured.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from adapters.embedded_postgres import EmbeddedPostgres
from tests.support.lakes import LocalLake
from tests.support.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_OURS = "application_name LIKE 'pgbronze/%'"

#: Relations that sessions of ours have locked, and how long others have waited for one of them.
_LOOK = f"""
WITH ours AS (SELECT array_agg(pid) AS pids FROM pg_stat_activity WHERE {_OURS})
SELECT (SELECT count(*) FROM pg_locks, ours WHERE locktype = 'relation' AND pid = ANY (pids)),
  (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8
   FROM pg_locks, ours
   WHERE NOT granted AND pid <> ALL (pids) AND pg_blocking_pids(pid) && pids)
"""

_LARGE_IS_READ = f"""
SELECT FROM pg_stat_activity WHERE {_OURS} AND query LIKE '%COPY (%u_large%'
"""


@dataclass
class Measured:
    """Seconds; `errors` are those of the application and of migrations."""

    tables: int
    indexes: int
    seconds: float = 0.0
    transactions: int = 0
    migrations: int = 0
    most_locks: int = 0
    longest_wait: float = 0.0
    alter: float = 0.0
    errors: list[str] = field(default_factory=list)


def measure(
    *, tables: int, indexes: int, partitions: int, large_rows: int, connections: int = 25
) -> Measured:
    """Take a snapshot into DuckDB, and have everything else go on meanwhile."""
    found = Measured(tables, indexes)
    with (
        EmbeddedPostgres(settings={"max_connections": str(connections)}) as server,
        tempfile.TemporaryDirectory() as folder,
        psycopg.connect(server.dsn, autocommit=True) as sql,
    ):
        _create(sql, tables, indexes, partitions, large_rows)
        pipeline = Pipeline(server.dsn, LocalLake("duckdb", Path(folder)))
        began = time.monotonic()
        process = pipeline.start("snapshot")
        names = [f"t_{n}" for n in range(tables)]
        with _beside(server.dsn, found, names):
            while process.poll() is None and not sql.execute(_LARGE_IS_READ).fetchall():
                time.sleep(0.05)
            altered = time.monotonic()
            sql.execute("ALTER TABLE t_0 ADD COLUMN added int")
            found.alter = time.monotonic() - altered
            output, _ = process.communicate()
        found.seconds = time.monotonic() - began
        if process.returncode:
            found.errors.append(output)
    return found


def _create(
    sql: psycopg.Connection, tables: int, indexes: int, partitions: int, large_rows: int
) -> None:
    def indexed(name: str) -> str:
        columns = ", ".join(f"c{n} int" for n in range(indexes - 1))
        more = "; ".join(f"CREATE INDEX ON {name} (c{n})" for n in range(indexes - 1))
        return f"CREATE TABLE {name} (id int PRIMARY KEY, n int, {columns}) {{}}; {more}"

    for number in range(tables):
        name = f"t_{number}"
        sql.execute(indexed(name).format("").encode())
        sql.execute(f"INSERT INTO {name} (id, n) VALUES (1, 0)".encode())
    if partitions:
        sql.execute(indexed("parts").format("PARTITION BY RANGE (id)").encode())
        for number in range(partitions):
            bounds = f"FROM ({number}) TO ({number + 1})"
            statement = f"CREATE TABLE parts_{number} PARTITION OF parts FOR VALUES {bounds}"
            sql.execute(statement.encode())
        sql.execute(b"INSERT INTO parts SELECT i FROM generate_series(0, %d) i" % (partitions - 1))
    sql.execute("CREATE TABLE u_large (id int PRIMARY KEY, x text)")
    rows = f"SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, {large_rows}) i"
    sql.execute(f"INSERT INTO u_large {rows}".encode())


@contextmanager
def _beside(dsn: str, found: Measured, names: Sequence[str]) -> Iterator[None]:
    """An application, migrations and an observer, until the end of the block."""
    stop = threading.Event()

    def session(work: Callable[[psycopg.Connection], None]) -> None:
        with psycopg.connect(dsn, autocommit=True) as sql:
            while not stop.is_set():
                try:
                    work(sql)
                except psycopg.Error as error:
                    found.errors.append(str(error))

    def update(sql: psycopg.Connection) -> None:
        with sql.transaction():
            for name in sorted(random.sample(names, min(60, len(names)))):
                sql.execute(f"UPDATE {name} SET n = n + 1 WHERE id = 1".encode())
        found.transactions += 1
        stop.wait(0.02)

    def migrate(sql: psycopg.Connection) -> None:
        with sql.transaction():
            sql.execute(f"LOCK TABLE {random.choice(names)} IN ACCESS EXCLUSIVE MODE".encode())
        found.migrations += 1
        stop.wait(0.05)

    def look(sql: psycopg.Connection) -> None:
        row: Any = sql.execute(_LOOK).fetchone()
        found.most_locks = max(found.most_locks, row[0])
        found.longest_wait = max(found.longest_wait, row[1])
        stop.wait(0.02)

    threads = [threading.Thread(target=session, args=[work]) for work in (update, migrate, look)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--indexes", type=int, default=17)
    parser.add_argument("--partitions", type=int, default=0)
    parser.add_argument("--large-rows", type=int, default=300_000)
    print(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
