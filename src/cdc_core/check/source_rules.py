"""Rules of `check` for the server, the role and the slot: facts in, findings out.

Each cure fits the provider that runs the server. Sources: PostgreSQL manual, "Logical
Replication", "Configuration Settings", "Replication Slots"; the providers' pages on logical
replication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.check.findings import Finding, fail, ok, warn
from cdc_core.ports.source_inspector import Provider
from cdc_core.slot.continuity import continuity_break
from cdc_core.slot.wal_budget import END_TRANSACTIONS, nearest_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cdc_core.ports.change_source import SlotState
    from cdc_core.ports.source_inspector import OpenTransaction, SourceFacts
    from cdc_core.values.checkpoint import Checkpoint

OLDEST_SUPPORTED = 14
#: The oldest version that decodes on a standby.
STANDBY_DECODING = 16

#: The first version (`server_version_num`) that raises `effective_wal_level` by itself.
RAISES_WAL_LEVEL = 190_000

#: A transaction that has been open for this long probably stays open.
LONG_TRANSACTION_SECONDS = 60.0
SHORT_SENDER_TIMEOUT = 10.0
LITTLE_WAL_LEFT = 1 << 30
#: A run may take up to one in `LOCK_SHARE` of the server's lock table.
LOCK_SHARE = 4

_WAL_LEVEL = {
    Provider.SELF: "ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL",
    Provider.RDS: "set rds.logical_replication = 1 in the (cluster) parameter group, then reboot",
    Provider.CLOUD_SQL: "gcloud sql instances patch INSTANCE "
    "--database-flags=cloudsql.logical_decoding=on",
    Provider.AZURE: "az postgres flexible-server parameter set --name wal_level --value logical, "
    "then restart",
    Provider.SUPABASE: "Supabase sets it to logical on every project: ask its support",
    Provider.NEON: "enable Logical Replication in the project's settings (Neon Console)",
}

#: Every key word except the unreserved ones. Manual: "SQL Key Words".
_KEY_WORDS = frozenset({
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric",
    "authorization", "between", "bigint", "binary", "bit", "boolean", "both", "case", "cast",
    "char", "character", "check", "coalesce", "collate", "collation", "column", "concurrently",
    "constraint", "create", "cross", "current_catalog", "current_date", "current_role",
    "current_schema", "current_time", "current_timestamp", "current_user", "dec", "decimal",
    "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists",
    "extract", "false", "fetch", "float", "for", "foreign", "freeze", "from", "full", "grant",
    "greatest", "group", "grouping", "having", "ilike", "in", "initially", "inner", "inout",
    "int", "integer", "intersect", "interval", "into", "is", "isnull", "join", "json",
    "json_array", "json_arrayagg", "json_exists", "json_object", "json_objectagg", "json_query",
    "json_scalar", "json_serialize", "json_table", "json_value", "lateral", "leading", "least",
    "left", "like", "limit", "localtime", "localtimestamp", "merge_action", "national", "natural",
    "nchar", "none", "normalize", "not", "notnull", "null", "nullif", "numeric", "offset", "on",
    "only", "or", "order", "out", "outer", "overlaps", "overlay", "placing", "position",
    "precision", "primary", "real", "references", "returning", "right", "row", "select",
    "session_user", "setof", "similar", "smallint", "some", "substring", "symmetric",
    "system_user", "table", "tablesample", "then", "time", "timestamp", "to", "trailing", "treat",
    "trim", "true", "union", "unique", "user", "using", "values", "varchar", "variadic",
    "verbose", "when", "where", "window", "with", "xmlattributes", "xmlconcat", "xmlelement",
    "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize",
    "xmltable",
})  # fmt: skip

#: Suggested `max_slot_wal_keep_size` if there is no limit or it is used up.
_KEPT_WAL = 64 << 30

#: Who may grant a missing privilege, where no superuser exists.
_BY = {
    Provider.RDS: ", as the master user",
    Provider.CLOUD_SQL: ", as a member of cloudsqlsuperuser",
    Provider.AZURE: ", as the server's administrator",
    Provider.SUPABASE: ", as postgres",
    Provider.NEON: ", as a role made in the Neon Console, or connect as such a role",
}


def decodes(version: int, wal_level: str, effective: str | None, *, standby: bool) -> bool:
    """Whether the WAL contains, or will contain, what logical decoding needs.

    From PostgreSQL 19 on, a primary with `wal_level = replica` raises its `effective_wal_level` at
    the first logical slot, and a standby follows it. `effective` is None on older servers.
    """
    raises = version >= RAISES_WAL_LEVEL and wal_level == "replica" and not standby
    return "logical" in (wal_level, effective) or raises


def source_findings(facts: SourceFacts) -> Iterator[Finding]:
    """Yield findings on the server and the role, not on tables."""
    major = facts.version // 10_000
    yield _version(facts, major)
    if facts.standby:
        yield _standby(facts, major)
    yield _wal_level(facts)
    yield from _role(facts)
    yield _publication(facts)
    yield _slots(facts)
    yield _senders(facts)
    yield from _limits(facts)
    yield _locks(facts)
    yield from (
        _open_transaction(transaction)
        for transaction in facts.transactions
        if transaction.seconds >= LONG_TRANSACTION_SECONDS
    )


def continuity_findings(
    facts: SourceFacts, checkpoint: Checkpoint | None, max_retained_wal: int | None = None
) -> Iterator[Finding]:
    """Yield whether the stream can continue from the checkpoint, and how long it can wait."""
    subject = f"slot {facts.slot_name}"
    slot = facts.slot
    if checkpoint is not None and facts.identity is not None:
        broken = continuity_break(checkpoint, facts.identity, slot)
        if broken is not None:
            yield fail(subject, broken.what, broken.cure)
            return
    if slot is None:
        yield ok(subject, "does not exist yet; pgbronze snapshot creates it")
    elif slot.database != facts.database:
        yield _slot_of_others(subject, slot)
    elif checkpoint is not None and facts.identity is None:
        yield from unknown_continuity(facts)
    elif checkpoint is None:
        yield warn(
            subject,
            "exists, but this destination has no checkpoint: pgbronze snapshot drops and recreates "
            "it, so no other pipeline may use it",
            "none needed if this pipeline created it; otherwise set "
            "sources.pg_replication.slot_name to another name",
        )
    elif slot.safe_bytes is not None and slot.safe_bytes < LITTLE_WAL_LEFT:
        yield warn(
            subject,
            f"is lost after {slot.safe_bytes >> 20} MB more of WAL",
            f"run pgbronze cdc now; for more room: {_keep_more_wal(facts)}",
        )
    elif (use := nearest_limit(slot, max_retained_wal)) is not None and use.near:
        yield warn(
            subject, str(use), f"run: pgbronze cdc; if that does not help: {END_TRANSACTIONS}"
        )
    else:
        retained = slot.retained_bytes >> 20
        yield ok(subject, f"continues the checkpoint; retains {retained} MB of WAL")


def unknown_continuity(facts: SourceFacts) -> Iterator[Finding]:
    """Report on the slot alone, because the checkpoint or the cluster's identity could not be read.

    That failure has a finding of its own, so a missing checkpoint is not reported here.
    """
    subject = f"slot {facts.slot_name}"
    if facts.slot is not None and facts.slot.database != facts.database:
        yield _slot_of_others(subject, facts.slot)
        return
    there = "exists" if facts.slot is not None else "does not exist"
    unread = "the source's identity" if facts.identity is None else "the destination's checkpoint"
    yield warn(
        subject,
        f"{there}; whether changes can continue is not known, because {unread} could not be read",
        "see the line that says fail, then run pgbronze check again",
    )


def _slot_of_others(subject: str, slot: SlotState) -> Finding:
    return fail(
        subject,
        f"belongs to database {slot.database!r}"
        if slot.database
        else "is a physical slot, which cannot be decoded",
        "set sources.pg_replication.slot_name to another name",
    )


def set_server(name: str, value: str, facts: SourceFacts) -> str:
    """Return how to set a server parameter with this provider."""
    match facts.provider:
        case Provider.SELF:
            return f"ALTER SYSTEM SET {name} = '{value}'; SELECT pg_reload_conf()"
        case Provider.RDS:
            return f"set {name} = {value} in the (cluster) parameter group"
        case Provider.CLOUD_SQL:
            return f"gcloud sql instances patch INSTANCE --database-flags={name}={value}"
        case Provider.AZURE:
            return f"az postgres flexible-server parameter set --name {name} --value {value}"
        case Provider.SUPABASE:
            return f"supabase postgres-config update --config {name}={value}"
        case Provider.NEON:
            return f"ask Neon's support to set {name} = {value}"


def quote(name: str) -> str:
    """An SQL identifier, in quotes where it needs them."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and name == name.lower()
    if plain and not name[0].isdigit() and name not in _KEY_WORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def _version(facts: SourceFacts, major: int) -> Finding:
    if major < OLDEST_SUPPORTED:
        return fail(
            "server",
            f"PostgreSQL {major} is not supported",
            f"upgrade it to {OLDEST_SUPPORTED} or newer",
        )
    return ok("server", f"PostgreSQL {major}.{facts.version % 10_000}, {facts.provider.value}")


def _standby(facts: SourceFacts, major: int) -> Finding:
    if major < STANDBY_DECODING:
        return fail(
            "standby",
            f"a standby of PostgreSQL {major} cannot decode",
            "point sources.pg_replication.credentials at the primary",
        )
    if not facts.hot_standby_feedback:
        return warn(
            "standby",
            "without hot_standby_feedback, the primary can invalidate the slot",
            set_server("hot_standby_feedback", "on", facts),
        )
    return ok("standby", "decodes")


def _wal_level(facts: SourceFacts) -> Finding:
    level, effective = facts.wal_level, facts.effective_wal_level
    if not decodes(facts.version, level, effective, standby=facts.standby):
        found = f"is {level}{f' (in effect: {effective})' if effective else ''}"
        where = "on the primary: " if facts.standby else ""
        cure = where + _WAL_LEVEL[facts.provider]
        return fail("wal_level", f"{found}; decoding needs logical", cure)
    if level == "logical":
        return ok("wal_level", "logical")
    raised = "logical" if effective == "logical" else f"{effective}, raised to logical by a slot"
    return ok("wal_level", f"{level}; in effect: {raised}")


def _role(facts: SourceFacts) -> Iterator[Finding]:
    role = quote(facts.role.name)
    subject = f"role {facts.role.name}"
    if facts.role.replication:
        yield ok(subject, "may use replication slots")
    else:
        statement = f"ALTER ROLE {role} REPLICATION"
        if facts.provider is Provider.RDS:
            statement = f"GRANT rds_replication TO {role}"
        by = _BY.get(facts.provider, "")
        yield fail(subject, "may not use replication slots", statement + by)
    if not facts.role.read_control_data:
        yield fail(
            subject,
            "may not read the cluster's identifier",
            f"GRANT EXECUTE ON FUNCTION pg_control_system() TO {role}",
        )


def _publication(facts: SourceFacts) -> Finding:
    publication = facts.publication
    subject = f"publication {publication.name}"
    if publication.exists:
        if publication.manageable:
            return ok(subject, "exists, and new tables that the role owns are added to it")
        if facts.standby:
            return warn(
                subject,
                "is used as it is: a standby cannot add tables to it",
                "none needed; new tables are followed once its owner adds them on the primary",
            )
        return warn(
            subject,
            "is used as it is: the role may not add new tables to it",
            "none needed; new tables are followed once its owner adds them",
        )
    if facts.standby:
        return fail(
            subject,
            "does not exist, and a standby cannot create it",
            f"run on the primary, as the tables' owner: {publication.statement}",
        )
    if facts.role.create_publications:
        return ok(subject, "does not exist yet; pgbronze snapshot creates it")
    if not all(table.owner for table in facts.tables.values()):
        # Without ownership it could not publish the tables either.
        return fail(
            subject,
            "does not exist, and the role may not create it (the tables' owner may)",
            publication.statement,
        )
    return fail(
        subject,
        "does not exist, and the role may not create it",
        f"GRANT CREATE ON DATABASE {quote(facts.database)} TO {quote(facts.role.name)}",
    )


def _slots(facts: SourceFacts) -> Finding:
    free = facts.max_replication_slots - facts.replication_slots
    # One is temporary: it marks a snapshot's LSN, or reads ahead of the durable position.
    needed = 1 if facts.slot is not None else 2
    sentence = f"{free} of {facts.max_replication_slots} free"
    if free >= needed:
        return ok("max_replication_slots", sentence)
    restart = set_server("max_replication_slots", str(facts.max_replication_slots + 5), facts)
    return fail(
        "max_replication_slots",
        f"{sentence}; {needed} needed",
        f"{restart}, then restart PostgreSQL; or drop a slot that nothing reads any more "
        "(SELECT slot_name, active FROM pg_replication_slots)",
    )


def _senders(facts: SourceFacts) -> Finding:
    free = facts.max_wal_senders - facts.wal_senders
    sentence = f"{free} of {facts.max_wal_senders} free"
    if free >= 1:
        return ok("max_wal_senders", sentence)
    restart = set_server("max_wal_senders", str(facts.max_wal_senders + 5), facts)
    return fail("max_wal_senders", f"{sentence}; 1 needed", f"{restart}, then restart PostgreSQL")


def _limits(facts: SourceFacts) -> Iterator[Finding]:
    if facts.slot_wal_limit is None:
        yield warn(
            "max_slot_wal_keep_size",
            "no limit: a slot that nobody reads fills the server's disk (the limit must fit it)",
            _keep_more_wal(facts),
        )
    else:
        yield ok("max_slot_wal_keep_size", f"{facts.slot_wal_limit >> 20} MB of WAL")
    if facts.slot_idle_limit is not None:
        yield warn(
            "idle_replication_slot_timeout",
            f"the slot is lost if no run reads it for {facts.slot_idle_limit:.0f} s",
            "run pgbronze cdc more often than that, or "
            + set_server("idle_replication_slot_timeout", "7d", facts),
        )
    if facts.sender_timeout is not None and facts.sender_timeout < SHORT_SENDER_TIMEOUT:
        yield warn(
            "wal_sender_timeout",
            f"{facts.sender_timeout:g} s is short: a slow network ends the stream",
            set_server("wal_sender_timeout", "60s", facts),
        )


def _keep_more_wal(facts: SourceFacts) -> str:
    """Return a limit that invalidates no existing slot: one that retains more is lost at once."""
    wanted = max(_KEPT_WAL, 2 * facts.most_retained, 2 * (facts.slot_wal_limit or 0))
    gigabytes = -(-wanted >> 30)
    return set_server("max_slot_wal_keep_size", f"{gigabytes}GB", facts)


def too_many_locks(facts: SourceFacts, relations: int) -> bool:
    """Whether a run's readers would use a large share of the lock table."""
    return facts.readers * relations * LOCK_SHARE > facts.lock_room


def _locks(facts: SourceFacts) -> Finding:
    most = max((table.relations_locked for table in facts.tables.values()), default=0)
    needed = facts.readers * most
    sentence = f"room for {facts.lock_room} locks; a run holds up to {needed} at a time"
    if not too_many_locks(facts, most):
        return ok("max_locks_per_transaction", sentence)
    enough = -(-needed * LOCK_SHARE // facts.max_sessions)
    return warn(
        "max_locks_per_transaction",
        f"{sentence}, so other sessions' statements could fail with 'out of shared memory'",
        f"{set_server('max_locks_per_transaction', str(enough), facts)}, then restart PostgreSQL",
    )


def _open_transaction(transaction: OpenTransaction) -> Finding:
    age = f"open for {transaction.seconds:.0f} s; a snapshot waits until it ends"
    if transaction.prepared:
        return warn(
            f"prepared transaction {transaction.prepared}",
            age,
            "have its transaction manager end it; to see it: SELECT * FROM pg_prepared_xacts",
        )
    return warn(
        f"transaction of backend {transaction.backend_pid}",
        f"{age} ({transaction.application or 'unnamed program'})",
        "have its program end it; to see what it does: "
        f"SELECT * FROM pg_stat_activity WHERE pid = {transaction.backend_pid}",
    )
