"""The source inspector port: facts about server, role, limits and tables, from the catalog.

Manual: `pg_settings`, `pg_roles`, "System Information Functions", `pg_stat_activity`,
`pg_prepared_xacts`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.catalog.publication import read_publication
from adapters.pgoutput.session.connection import connect
from adapters.pgoutput.session.source_errors import source_errors
from adapters.pgoutput.session.wal_position import source_identity
from adapters.pgoutput.slot.slot import read_slot
from adapters.pgoutput.snapshot.row_ranges import relations_locked
from cdc_core.ports.source_inspector import (
    OpenTransaction,
    Provider,
    PublicationFacts,
    Role,
    SourceFacts,
    TableFacts,
)
from cdc_core.values.errors import OperatorNeeded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.pgoutput.catalog.publication import Publication
    from adapters.pgoutput.session.connection import Connection
    from adapters.pgoutput.session.settings import SourceSettings
    from cdc_core.values.checkpoint import SourceIdentity

#: Settings and roles that only this provider's servers have.
_MARKS: Mapping[Provider, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Provider.NEON: (("neon.tenant_id", "neon.timeline_id"), ("neon_superuser",)),
    Provider.SUPABASE: ((), ("supabase_admin", "supabase_replication_admin")),
    Provider.RDS: (("rds.logical_replication", "rds.extensions"), ("rds_superuser", "rdsadmin")),
    Provider.CLOUD_SQL: (("cloudsql.logical_decoding",), ("cloudsqlsuperuser", "cloudsqladmin")),
    Provider.AZURE: (("azure.extensions",), ("azure_pg_admin", "azuresu")),
}

_SETTINGS = """
SELECT name, setting, unit FROM pg_settings
WHERE name IN ('wal_level', 'effective_wal_level', 'max_replication_slots', 'max_wal_senders',
  'max_slot_wal_keep_size', 'idle_replication_slot_timeout', 'wal_sender_timeout',
  'hot_standby_feedback', 'max_locks_per_transaction', 'max_connections',
  'max_prepared_transactions')
  OR name LIKE 'neon.%' OR name LIKE 'rds.%' OR name LIKE 'cloudsql.%' OR name LIKE 'azure.%'
"""

_ROLE = """
SELECT r.rolname::text, r.rolsuper OR r.rolreplication OR EXISTS (
    SELECT FROM pg_roles p
    WHERE p.rolname = 'rds_replication' AND pg_has_role(r.oid, p.oid, 'USAGE')),
  has_database_privilege(current_database(), 'CREATE'),
  has_function_privilege('pg_control_system()', 'EXECUTE'),
  current_database()::text, pg_is_in_recovery()
FROM pg_roles r WHERE r.rolname = current_user
"""

_IN_USE = """
SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication)
"""

#: Backends with a transaction id. Details of other users' backends may be hidden.
_TRANSACTIONS = """
SELECT extract(epoch FROM clock_timestamp() - xact_start)::float8, pid, application_name, ''
FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL
SELECT extract(epoch FROM clock_timestamp() - prepared)::float8, NULL, '', gid
FROM pg_prepared_xacts
ORDER BY 1 DESC LIMIT 10
"""

_MOST_RETAINED = """
SELECT coalesce(max(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
  ELSE pg_current_wal_lsn() END, restart_lsn)), 0)::bigint FROM pg_replication_slots
"""

_TABLES = """
SELECT c.oid, c.relnamespace, has_schema_privilege(c.relnamespace, 'USAGE'),
  has_table_privilege(c.oid, 'SELECT'), pg_has_role(c.relowner, 'USAGE'),
  row_security_active(c.oid),
  ARRAY(SELECT ARRAY[a.attnum::text, a.attname::text, a.attgenerated::text] FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
FROM pg_class c WHERE c.oid = ANY (%s)
"""

_UNIT_BYTES = {"B": 1, "kB": 1 << 10, "8kB": 8 << 10, "MB": 1 << 20, "GB": 1 << 30}
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}


class PgSourceInspector:
    """`SourceInspector` of one database."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings

    def facts(self) -> SourceFacts:
        with connect(self._settings) as connection, source_errors("inspecting the server"):
            return self._facts(connection)

    def _facts(self, connection: Connection) -> SourceFacts:
        settings = {name: (value, unit) for name, value, unit in _rows(connection, _SETTINGS)}
        role, replication, create, control, database, standby = _rows(connection, _ROLE)[0]
        slots, senders = _rows(connection, _IN_USE)[0]
        publication = read_publication(connection, self._settings.pub_name)
        catalog = PgCatalog(self._settings)
        try:
            tables = self._tables(connection, catalog, publication)
            statement = catalog.creating_publication() if publication is None else ""
        finally:
            catalog.close()
        return SourceFacts(
            version=connection.info.server_version,
            database=database,
            provider=_provider(connection, settings),
            identity=_identity(connection, self._settings.slot_name),
            wal_level=settings["wal_level"][0],
            effective_wal_level=settings.get("effective_wal_level", (None,))[0],
            standby=standby,
            hot_standby_feedback=settings["hot_standby_feedback"][0] == "on",
            role=Role(role, replication, create, control),
            publication=PublicationFacts(
                self._settings.pub_name,
                publication is not None,
                publication is not None and publication.manageable,
                statement,
            ),
            slot_name=self._settings.slot_name,
            slot=read_slot(connection, self._settings.slot_name),
            max_replication_slots=int(settings["max_replication_slots"][0]),
            replication_slots=slots,
            max_wal_senders=int(settings["max_wal_senders"][0]),
            wal_senders=senders,
            slot_wal_limit=_limit(settings.get("max_slot_wal_keep_size"), _UNIT_BYTES, -1),
            slot_idle_limit=_limit(settings.get("idle_replication_slot_timeout"), _UNIT_SECONDS, 0),
            sender_timeout=_limit(settings.get("wal_sender_timeout"), _UNIT_SECONDS, 0),
            transactions=[
                OpenTransaction(max(seconds, 0.0), pid, application or "", gid)
                for seconds, pid, application, gid in _rows(connection, _TRANSACTIONS)
            ],
            tables=tables,
            most_retained=_rows(connection, _MOST_RETAINED)[0][0],
            max_locks_per_transaction=_number(settings, "max_locks_per_transaction"),
            max_sessions=_number(settings, "max_connections")
            + _number(settings, "max_prepared_transactions"),
            readers=self._settings.parallelism,
        )

    def _tables(
        self, connection: Connection, catalog: PgCatalog, publication: Publication | None
    ) -> Mapping[int, TableFacts]:
        sent = {
            table.relation.oid: {column.attnum for column in table.relation.columns}
            for table in catalog.tables()
        }
        locked = relations_locked(connection, list(sent))
        return {
            oid: replace(
                _table_facts([*row, oid], sent[oid], publication),
                relations_locked=locked.get(oid, 0),
            )
            for oid, *row in _rows(connection, _TABLES, [list(sent)])
        }


def _table_facts(
    row: Sequence[Any], sent: Collection[int], publication: Publication | None
) -> TableFacts:
    schema, usage, select, owner, hidden, columns, oid = row
    listed, row_filter = None, ""
    if publication is not None and not publication.all_tables and schema not in publication.schemas:
        listed, row_filter = publication.tables.get(oid, (None, ""))
    unsent = [(name, made) for number, name, made in columns if int(number) not in sent]
    generated = [name for name, made in unsent if made and listed is None]
    return TableFacts(
        schema_usage=usage,
        select=usage and select,
        owner=owner,
        hidden_rows=hidden,
        generated_columns=generated,
        virtual_columns=[name for name, made in unsent if made == "v"],
        unlisted_columns=[name for name, _ in unsent if listed is not None],
        row_filter=row_filter,
    )


def _identity(connection: Connection, slot_name: str) -> SourceIdentity | None:
    try:
        return source_identity(connection, slot_name)
    except OperatorNeeded:
        return None  # the facts about the role say why


def _provider(connection: Connection, settings: Mapping[str, object]) -> Provider:
    wanted = [role for _, roles in _MARKS.values() for role in roles]
    query = "SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s)"
    present = {name for (name,) in _rows(connection, query, [wanted])}
    for provider, (names, roles) in _MARKS.items():
        if any(name in settings for name in names) or present.intersection(roles):
            return provider
    return Provider.SELF


def _limit(setting: tuple[str, str | None] | None, units: Mapping[str, float], none: int) -> Any:
    """A setting in bytes or seconds; None if it is absent or has the value for no limit."""
    if setting is None or int(setting[0]) == none:
        return None
    value = int(setting[0]) * units[setting[1] or ""]
    return int(value) if units is _UNIT_BYTES else value


def _number(settings: Mapping[str, tuple[str, str | None]], name: str) -> int:
    return int(settings[name][0])


def _rows(connection: Connection, query: str, parameters: Sequence[object] = ()) -> list[Any]:
    return connection.execute(query.encode(), parameters or None).fetchall()
