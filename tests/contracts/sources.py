"""Sources to hold the source's ports against: PostgreSQL, and the fake, and what writes to them.

Tables have the same three columns everywhere: `id` (the key, where there is one), `note`, and
`doc`, whose longer values are stored out of line.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import pyarrow as pa

from adapters.fakes import InMemoryMonitor, InMemoryPostgres, InMemorySource
from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.inspector import PgSourceInspector
from adapters.pgoutput.monitor import PgSourceMonitor
from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from cdc_core.values.relation import ReplicaIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.ports.catalog import Catalog
    from cdc_core.ports.change_source import ChangeSource
    from cdc_core.ports.snapshot_source import SnapshotSource
    from cdc_core.ports.source_inspector import SourceInspector
    from cdc_core.ports.source_monitor import SourceMonitor

#: Long enough to be stored out of line.
LONG = "long " * 1000
SLOT = "contract_slot"
#: Rows with a `LONG_ENOUGH` note from which on a table has parts: some pages full.
PART_ROWS = 50
LONG_ENOUGH = "kept in the row " * 60


class Writer(Protocol):
    """Statements of one transaction, on tables by their oid."""

    def insert(self, oid: int, id_: int, note: str | None, doc: str | None = None) -> None: ...

    def set_note(self, oid: int, id_: int, note: str | None) -> None: ...

    def set_id(self, oid: int, id_: int, new: int) -> None: ...

    def delete(self, oid: int, id_: int) -> None: ...

    def truncate(self, oid: int) -> None: ...


class SourceUnderTest(Protocol):
    """The ports of one fresh database, and the application that uses it."""

    slot_name: str

    def change_source(self, *, small_batches: bool = False) -> ChangeSource: ...

    def catalog(
        self, schemas: Sequence[str] = ("public",), exclude: Sequence[str] = ()
    ) -> Catalog: ...

    def snapshot_source(self) -> SnapshotSource: ...

    def monitor(self) -> SourceMonitor: ...

    def inspector(self) -> SourceInspector: ...

    def create_table(
        self,
        name: str,
        *,
        key: bool = True,
        identity: ReplicaIdentity | None = None,
        schema: str = "public",
    ) -> int:
        """Its oid. Without key and identity: REPLICA IDENTITY FULL."""
        ...

    def set_identity(self, oid: int, identity: ReplicaIdentity) -> None: ...

    def rename_table(self, oid: int, name: str) -> None: ...

    def drop_table(self, oid: int) -> None: ...

    def add_column(self, oid: int, name: str) -> None: ...

    def rename_column(self, oid: int, name: str, new: str) -> None: ...

    def drop_column(self, oid: int, name: str) -> None: ...

    def rewrite_notes(self, oid: int) -> None:
        """An ALTER that changes every row's `note` and sends nothing."""
        ...

    def transaction(self) -> AbstractContextManager[Writer]: ...

    def read_elsewhere(self) -> AbstractContextManager[str]:
        """Another process reads the slot; what names it."""
        ...


def roll_back(db: SourceUnderTest, write: Callable[[Writer], None]) -> None:
    """A transaction that writes, and then does not commit."""
    with suppress(_NeverMind), db.transaction() as transaction:
        write(transaction)
        raise _NeverMind


class _NeverMind(Exception):
    pass


@dataclass
class InMemory:
    """The fakes."""

    postgres: InMemoryPostgres = field(default_factory=InMemoryPostgres)
    slot_name: str = SLOT

    def change_source(self, *, small_batches: bool = False) -> InMemorySource:
        return self._source(batch_transactions=1 if small_batches else 1000)

    def catalog(
        self, schemas: Sequence[str] = ("public",), exclude: Sequence[str] = ()
    ) -> InMemorySource:
        return self._source(schemas=schemas, exclude=exclude)

    def snapshot_source(self) -> InMemorySource:
        return self._source(chunk_rows=2, range_rows=PART_ROWS)

    def monitor(self) -> InMemoryMonitor:
        return InMemoryMonitor(self.postgres, self.slot_name)

    def inspector(self) -> InMemorySource:
        return self._source()

    def _source(self, **options: Any) -> InMemorySource:
        return InMemorySource(self.postgres, self.slot_name, **options)

    def create_table(
        self,
        name: str,
        *,
        key: bool = True,
        identity: ReplicaIdentity | None = None,
        schema: str = "public",
    ) -> int:
        columns = {"id": pa.int64(), "note": pa.string(), "doc": pa.string()}
        keys = ("id",) if key else ()
        return self.postgres.create_table(name, columns, keys, ("doc",), schema, identity)

    def set_identity(self, oid: int, identity: ReplicaIdentity) -> None:
        self.postgres.set_identity(oid, identity)

    def rename_table(self, oid: int, name: str) -> None:
        self.postgres.rename_table(oid, name)

    def drop_table(self, oid: int) -> None:
        self.postgres.drop_table(oid)

    def add_column(self, oid: int, name: str) -> None:
        self.postgres.add_column(oid, name, pa.string())

    def rename_column(self, oid: int, name: str, new: str) -> None:
        self.postgres.rename_column(oid, name, new)

    def drop_column(self, oid: int, name: str) -> None:
        self.postgres.drop_column(oid, name)

    def rewrite_notes(self, oid: int) -> None:
        self.postgres.rewrite(oid, "note", pa.string(), lambda note: f"<{note}>")

    @contextmanager
    def transaction(self) -> Iterator[InMemoryWriter]:
        with self.postgres.transaction() as transaction:
            yield InMemoryWriter(transaction)

    @contextmanager
    def read_elsewhere(self) -> Iterator[str]:
        self.postgres.reader = "process 1234"
        yield "process 1234"
        self.postgres.reader = None


@dataclass
class InMemoryWriter:
    transaction: Any

    def insert(self, oid: int, id_: int, note: str | None, doc: str | None = None) -> None:
        self.transaction.insert(oid, id=id_, note=note, doc=doc)

    def set_note(self, oid: int, id_: int, note: str | None) -> None:
        self.transaction.update(oid, {"id": id_}, note=note)

    def set_id(self, oid: int, id_: int, new: int) -> None:
        self.transaction.update(oid, {"id": id_}, id=new)

    def delete(self, oid: int, id_: int) -> None:
        self.transaction.delete(oid, id=id_)

    def truncate(self, oid: int) -> None:
        self.transaction.truncate(oid)


@dataclass
class RealPostgres:
    """A fresh database of a PostgreSQL server."""

    sql: psycopg.Connection
    settings: SourceSettings
    snapshots: Callable[[SourceSettings], SnapshotSource] = PgSnapshotSource
    _catalogs: list[PgCatalog] = field(default_factory=list)

    @property
    def slot_name(self) -> str:
        return self.settings.slot_name

    def close(self) -> None:
        for catalog in self._catalogs:
            catalog.close()

    def change_source(self, *, small_batches: bool = False) -> PgChangeSource:
        return PgChangeSource(
            replace(self.settings, batch_max_rows=1) if small_batches else self.settings
        )

    def catalog(
        self, schemas: Sequence[str] = ("public",), exclude: Sequence[str] = ()
    ) -> PgCatalog:
        catalog = PgCatalog(replace(self.settings, schemas=tuple(schemas), exclude=tuple(exclude)))
        self._catalogs.append(catalog)
        return catalog

    def snapshot_source(self) -> SnapshotSource:
        return self.snapshots(self.settings)

    def monitor(self) -> PgSourceMonitor:
        return PgSourceMonitor(self.settings)

    def inspector(self) -> PgSourceInspector:
        return PgSourceInspector(self.settings)

    def create_table(
        self,
        name: str,
        *,
        key: bool = True,
        identity: ReplicaIdentity | None = None,
        schema: str = "public",
    ) -> int:
        self._run(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        primary = "PRIMARY KEY" if key else ""
        self._run(f"CREATE TABLE {schema}.{name} (id bigint {primary}, note text, doc text)")
        self._run(f"ALTER TABLE {schema}.{name} ALTER doc SET STORAGE EXTERNAL")
        row = self.sql.execute("SELECT %s::regclass::oid::bigint", [f"{schema}.{name}"]).fetchone()
        assert row is not None
        oid = int(row[0])
        if identity is not None or not key:
            self.set_identity(oid, identity or ReplicaIdentity.FULL)
        return oid

    def set_identity(self, oid: int, identity: ReplicaIdentity) -> None:
        self._run(f"ALTER TABLE {self._name(oid)} REPLICA IDENTITY {identity.name}")

    def rename_table(self, oid: int, name: str) -> None:
        self._run(f"ALTER TABLE {self._name(oid)} RENAME TO {name}")

    def drop_table(self, oid: int) -> None:
        self._run(f"DROP TABLE {self._name(oid)}")

    def add_column(self, oid: int, name: str) -> None:
        self._run(f"ALTER TABLE {self._name(oid)} ADD COLUMN {name} text")

    def rename_column(self, oid: int, name: str, new: str) -> None:
        self._run(f"ALTER TABLE {self._name(oid)} RENAME COLUMN {name} TO {new}")

    def drop_column(self, oid: int, name: str) -> None:
        self._run(f"ALTER TABLE {self._name(oid)} DROP COLUMN {name}")

    def rewrite_notes(self, oid: int) -> None:
        self._run(f"ALTER TABLE {self._name(oid)} ALTER note TYPE text USING '<' || note || '>'")

    @contextmanager
    def transaction(self) -> Iterator[SqlWriter]:
        with self.sql.transaction():
            yield SqlWriter(self)

    @contextmanager
    def read_elsewhere(self) -> Iterator[str]:
        other: Any = psycopg.connect(
            self.settings.conninfo, replication="database", application_name="another tool"
        )
        with other:
            other.pgconn.exec_(
                f"START_REPLICATION SLOT {self.slot_name} LOGICAL 0/0 "
                f"(proto_version '1', publication_names '{self.settings.pub_name}')".encode()
            )
            yield "another tool"
            other.close()

    def _run(self, statement: str) -> None:
        self.sql.execute(statement.encode())

    def _name(self, oid: int) -> str:
        row = self.sql.execute("SELECT %s::oid::regclass::text", [oid]).fetchone()
        assert row is not None
        return str(row[0])


@dataclass
class SqlWriter:
    source: RealPostgres

    def insert(self, oid: int, id_: int, note: str | None, doc: str | None = None) -> None:
        self._run(oid, "INSERT INTO {} (id, note, doc) VALUES (%s, %s, %s)", id_, note, doc)

    def set_note(self, oid: int, id_: int, note: str | None) -> None:
        self._run(oid, "UPDATE {} SET note = %s WHERE id = %s", note, id_)

    def set_id(self, oid: int, id_: int, new: int) -> None:
        self._run(oid, "UPDATE {} SET id = %s WHERE id = %s", new, id_)

    def delete(self, oid: int, id_: int) -> None:
        self._run(oid, "DELETE FROM {} WHERE id = %s", id_)

    def truncate(self, oid: int) -> None:
        self._run(oid, "TRUNCATE {}")

    def _run(self, oid: int, statement: str, *values: Any) -> None:
        self.source.sql.execute(statement.format(self.source._name(oid)).encode(), values)
