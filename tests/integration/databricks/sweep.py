"""Whole runs, from PostgreSQL to the warehouse, that meet the faults of its switch.

`python -m tests.integration.databricks.sweep [SHOP|RUN|FAULT …]` strikes every statement, upload
and opening of a session with every fault, one a run, of the shops, runs and faults that are named,
or of all. A run without an error must end equal, and so must the next run. A fault that is cured by
sending again must not end a run. A reader that polls must never miss a row. In the shop `rules`,
tables have histories, soft deletes and masks. All of it takes some hours; a test strikes them all
in one run after another.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import json
import re
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import psycopg
import pyarrow.compute as pc

from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import CdcError, SettingsError
from tests.integration.databricks.conftest import PATIENCE
from tests.integration.warehouse.fixtures import running_warehouse
from tests.integration.warehouse.refusals import (
    ADDRESSES,
    NETWORKS,
    PRIVILEGES,
    STORAGES,
    TOKENS,
    WAREHOUSES,
)
from tests.support import audit, oracle
from tests.support.history_model import as_of, assert_log_leads_to
from tests.support.lakes import WarehouseLake
from tests.support.pipeline import Service
from tests.support.postgres import test_server
from tests.support.spark_engine import ENGINE, databricks_on

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.integration.warehouse.client import Warehouse

#: What the reader asks for, and what a run does: statements, uploads and the opening of sessions
#: (the rest of Thrift is the reader's too), or statements alone.
READ = "SELECT COUNT(*), COUNT(DISTINCT n), COUNT(big) FROM bronze.steady"
RUN = rf"^(?!{re.escape(READ)}|THRIFT (?!OpenSession))"
STATEMENT = rf"^(?!{re.escape(READ)}|THRIFT|HTTP)"

#: An upload, whose address a storage may refuse.
UPLOAD = "^HTTP PUT"

#: Those that meet statements of a Spark session too.
IN_A_SESSION = ("drop_before", "conflict", "drop_after", "delay", "error", "MODIFY")

#: The faults, and where each can strike: an upload or a session meets no conflict.
FAULTS = {
    "drop_before": RUN,
    "conflict": STATEMENT,
    "429": RUN,
    "drop_after": RUN,
    "503": RUN,
    "token missing": STATEMENT,
    "delay": RUN,
    "Azure address ended": UPLOAD,
    "error": STATEMENT,
    "address blocked": RUN,
    "warehouse not allowed": RUN,
    "Azure firewall": UPLOAD,
    "MODIFY": STATEMENT,
}

if ENGINE == "spark":
    # The others are of logins, of addresses and of HTTP, which a session has nothing to do with.
    FAULTS = {kind: at for kind, at in FAULTS.items() if kind in IN_A_SESSION}

#: Those that no sending again cures: an operator does, or another run.
LASTING = ("error", "address blocked", "warehouse not allowed", "Azure firewall", "MODIFY")

FOREVER = 10_000

#: A run, and what is there before it: nothing, or tables and a checkpoint.
RUNS = ("first snapshot", "snapshot", "cdc")
TABLES = ("steady", "moving", "bag")
ROWS = 5

_STEADY = f"""
CREATE TABLE steady (id int PRIMARY KEY, n int, big text);
ALTER TABLE steady ALTER big SET STORAGE EXTERNAL;
INSERT INTO steady SELECT g, 0, repeat('x', 3000) FROM generate_series(1, {ROWS}) AS g;
"""
_TABLES = f"""
CREATE TABLE moving (id int PRIMARY KEY, n int, old text);
CREATE TABLE bag (what int);
ALTER TABLE bag REPLICA IDENTITY FULL;
INSERT INTO moving SELECT g, 0, 'x' FROM generate_series(1, {ROWS}) AS g;
INSERT INTO bag SELECT 0 FROM generate_series(1, {ROWS});
"""
_CHANGES = """
UPDATE steady SET n = n + 1;
DELETE FROM moving WHERE id % 5 = (SELECT max(n) FROM steady) % 5;
UPDATE moving SET id = id + 100, n = n + 1 WHERE id % 5 = (SELECT max(n) + 1 FROM steady) % 5;
INSERT INTO moving (id, n) SELECT max(n) + 1000, 0 FROM steady;
DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag);
INSERT INTO bag SELECT max(n) FROM steady, generate_series(1, 2)
"""
#: The stream follows each, by an ALTER in the destination.
DEFINITIONS = """
ALTER TABLE moving ADD more int;
ALTER TABLE moving RENAME old TO new;
INSERT INTO moving (id, more, new) VALUES (2000, 1, 'y')
"""


#: Transactions between two runs on tables whose every change the database records.
TRANSACTIONS = 4
_MASK_KEY = "of the sweep"
_RULES = json.dumps(
    [
        *json.loads(audit.RULES),
        {"match": "public.steady", "history": ["log"], "mask": {"big": "hash"}},
    ]
)


def fault(kind: str) -> dict[str, Any]:
    """The settings of a kind of fault, the pattern among them."""
    settings: dict[str, Any] = {"pattern": FAULTS[kind], "seconds": 0.01}
    refusals = {**TOKENS, **ADDRESSES, **NETWORKS, **WAREHOUSES, **STORAGES}
    if kind in refusals:
        return {**settings, **refusals[kind]}
    if kind in PRIVILEGES:
        return {**settings, **PRIVILEGES[kind][1]}
    if kind.isdigit():
        return {**settings, "kind": "http", "status": int(kind)}
    return {**settings, "kind": kind}


@dataclass
class Shop:
    """A database and a warehouse, and the runs between them."""

    dsn: str
    warehouse: Warehouse
    folder: Path
    in_one_transaction: bool = False
    service: Service = field(init=False)
    source: psycopg.Connection[Any] = field(init=False)
    tables: ClassVar[str] = _STEADY + _TABLES
    settings: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        settings = PipelineSettings("pgbronze", "bronze", self.folder / "work")
        self.service = Service(
            self.dsn,
            WarehouseLake(self.warehouse, self.folder),
            lambda: databricks_on(
                self.warehouse,
                settings,
                multi_table_transaction=self.in_one_transaction,
                retry_policy=PATIENCE,
            ),
            self.settings,
        )
        self.source = psycopg.connect(self.dsn, autocommit=True)
        self.source.execute(self.tables.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.source.close()

    def change(self) -> None:
        """Every row of a table updated, rows of the others deleted, inserted, under new keys."""
        with self.source.transaction():
            self.source.execute(_CHANGES.encode())

    def prepare(self, run: str) -> None:
        """Leave behind what is there before such a run."""
        if run == "first snapshot":
            self.warehouse.reset()
            self.source.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                " WHERE database = current_database()"
            )
        self.change()

    def run(self, run: str) -> None:
        self.service.run(run.removeprefix("first "))

    def assert_equal(self) -> None:
        """Every table, read from its folder, is the source's."""
        oracle.assert_equal(self.source, self.service.lake, TABLES)  # type: ignore[arg-type]

    def assert_swept(self) -> None:
        """The volumes are empty."""
        for schema in ("bronze", "bronze_staging"):
            volume = self.warehouse.volume_path(schema, "_dlt_staging_load_volume")
            assert not list(volume.rglob("*.parquet")), volume

    @contextlib.contextmanager
    def reading(self) -> Iterator[set[tuple[int, ...]]]:
        """What a reader in a session of its own sees again and again: rows and versions of them.

        The table must be there.
        """
        seen: set[tuple[int, ...]] = set()
        stop = threading.Event()
        connection = self.warehouse.connect()

        def read() -> None:
            with connection, connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute(READ)
                    seen.update(tuple(row) for row in cursor.fetchall())
                    stop.wait(0.1)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield seen
        finally:
            stop.set()
            thread.join()


@dataclass
class ShopWithRules(Shop):
    """Histories, soft deletes and masks, on tables whose every change the database records."""

    tables: ClassVar[str] = _STEADY + audit.TABLES
    settings: ClassVar[Mapping[str, str]] = {
        "SOURCES__PG_REPLICATION__TABLES": _RULES,
        "SOURCES__PG_REPLICATION__MASK_KEY": _MASK_KEY,
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self._work = audit.AuditedWork(self.source, seed=1)
        self._work.run(10 * TRANSACTIONS)
        self._snapshots = 0

    def change(self) -> None:
        self.source.execute("UPDATE steady SET n = n + 1")
        self._work.run(TRANSACTIONS)

    def run(self, run: str) -> None:
        if run != "cdc":
            self._snapshots += 1
            self._work.copies.clear()
            self._work.begin()
        super().run(run)

    def assert_equal(self) -> None:
        """The tables are the source's, and the images those that the database recorded; after a
        second snapshot, which gives the difference alone, they lead to the tables."""
        lake = self.service.lake
        if self._snapshots == 1:
            self._work.assert_history(lake)
        for table, columns in audit.COLUMNS.items():
            shown = ", ".join(f"{n}::text" if n == "amount" else n for n in columns)
            rows = Counter(self.source.execute(f"SELECT {shown} FROM {table}".encode()))
            stored = lake.read(table)
            if audit.KEYS[table]:
                stored = stored.filter(pc.is_null(stored["_cdc_deleted_at"]))
                versions = lake.read(f"{table}_scd2").to_pylist()
                assert as_of(versions, 1 << 62, columns) == rows, table
            assert Counter(tuple(row[n] for n in columns) for row in stored.to_pylist()) == rows
            assert_log_leads_to(stored, lake.read(f"{table}_history"))
        steady = lake.read("steady")
        assert_log_leads_to(steady, lake.read("steady_history"))
        masked = [
            (id_, n, hmac.new(_MASK_KEY.encode(), big.encode(), hashlib.sha256).hexdigest())
            for id_, n, big in self.source.execute("SELECT id, n, big FROM steady")
        ]
        found = [(row["id"], row["n"], row["big"]) for row in steady.to_pylist()]
        assert sorted(found) == sorted(masked)


SHOPS: Mapping[str, type[Shop]] = {"plain": Shop, "rules": ShopWithRules}

#: All that a reader may see: every row, all of one version, none without its long value.
WHOLE = {(ROWS, 1, ROWS)}


def strike(shop: Shop, run: str, kind: str, nth: int) -> bool:
    """One run of which number `nth` meets the fault, and the next run; whether it struck.

    A refusal stays until an operator has acted, between the runs. The next run is of the same kind,
    or, as often, the stream goes on where the snapshot failed. After a `cdc` that did not fail, it
    is that of the next strike.
    """
    shop.prepare(run)
    reading = contextlib.nullcontext(set(WHOLE)) if run == "first snapshot" else shop.reading()
    with reading as seen:
        times = FOREVER if kind in LASTING and kind != "error" else 1
        shop.warehouse.add_fault(nth=nth, times=times, **fault(kind))
        ended = _ends(shop, run, kind)
        struck: bool = shop.warehouse.faults()[0]["fired"] > 0
        shop.warehouse.clear_faults()
        if ended:
            shop.assert_equal()
        if run != "cdc" or kind in LASTING or not ended:
            shop.run("cdc" if run == "snapshot" and nth % 2 else run)
            shop.assert_equal()
    assert seen == WHOLE, (run, kind, nth, seen)
    return struck


def _ends(shop: Shop, run: str, kind: str) -> bool:
    """Whether the run ends without an error, as it must unless the fault lasts. A token that is
    refused before it has ever worked is wrong settings."""
    try:
        shop.run(run)
    except CdcError as error:
        never_worked = kind == "token missing" and isinstance(error, SettingsError)
        if kind not in LASTING and not never_worked:
            raise
        return False
    return True


def sweep(shop: Shop, run: str, kind: str) -> int:
    """Strike until nothing is left to be struck; how often."""
    shop.run("snapshot")
    nth = 1
    while strike(shop, run, kind, nth):
        nth += 1
    shop.change()
    shop.run("cdc")
    shop.assert_equal()
    shop.assert_swept()
    return nth - 1


def main() -> None:
    from databricks.sql.auth.retry import DatabricksRetryPolicy

    DatabricksRetryPolicy.get_backoff_time = lambda *_: 0.0  # type: ignore[method-assign]
    named = set(sys.argv[1:])
    runs = [run for run in RUNS if run in named] or RUNS
    kinds = [kind for kind in FAULTS if kind in named] or FAULTS
    shops = [shop for shop in SHOPS if shop in named] or SHOPS
    with (
        tempfile.TemporaryDirectory() as name,
        running_warehouse(Path(name) / "root") as warehouse,
        test_server() as server,
    ):
        ways = itertools.product(shops, runs, kinds, (False, True))
        for name_of_shop, run, kind, in_one_transaction in ways:
            warehouse.reset()
            folder = Path(tempfile.mkdtemp(dir=name))
            with (
                server.database() as dsn,
                SHOPS[name_of_shop](dsn, warehouse, folder, in_one_transaction) as shop,
            ):
                count = sweep(shop, run, kind)
            way = ", one transaction" if in_one_transaction else ""
            print(f"{name_of_shop}, {run}{way}: {kind} at each of {count} places", flush=True)


if __name__ == "__main__":
    main()
