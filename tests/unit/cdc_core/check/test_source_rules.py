"""Each thing that can be wrong at a source, with the line and the cure that `check` has for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_core.check.findings import Finding, Level
from cdc_core.check.source_rules import continuity_findings, quote, source_findings
from cdc_core.ports.change_source import SlotState
from cdc_core.ports.source_inspector import (
    OpenTransaction,
    Provider,
    PublicationFacts,
    Role,
    SourceFacts,
    TableFacts,
)
from cdc_core.values.checkpoint import Checkpoint, SourceIdentity
from cdc_core.values.lsn import Lsn

IDENTITY = SourceIdentity("1", "db", "slot")
SLOT = SlotState("slot", "pgoutput", "db", None, Lsn(9), Lsn(9), "reserved", 0, None)

GOOD = SourceFacts(
    version=160003,
    database="db",
    provider=Provider.SELF,
    identity=IDENTITY,
    wal_level="logical",
    standby=False,
    hot_standby_feedback=False,
    role=Role("cdc", replication=True, create_publications=True, read_control_data=True),
    publication=PublicationFacts("pub", exists=True, manageable=True),
    slot_name="slot",
    slot=None,
    max_replication_slots=10,
    replication_slots=8,
    max_wal_senders=10,
    wal_senders=9,
    slot_wal_limit=64 << 30,
    slot_idle_limit=None,
    sender_timeout=60.0,
    transactions=(OpenTransaction(5.0, 1),),
    tables={},
)


def bad(facts: SourceFacts) -> list[Finding]:
    return [found for found in source_findings(facts) if found.level is not Level.OK]


def test_a_good_source_is_all_ok() -> None:
    assert bad(GOOD) == []
    assert len(list(source_findings(GOOD))) == 8


ROLE = GOOD.role
TABLE = TableFacts(schema_usage=True, select=True, owner=True, hidden_rows=False)
OWN_LEVEL = {"version": 190000, "wal_level": "replica", "effective_wal_level": "replica"}
MISSING = PublicationFacts(
    "pub", exists=False, manageable=False, statement="CREATE PUBLICATION pub FOR TABLE ONLY t"
)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "replica; in effect: replica, raised to logical by a slot"),
        ({"effective_wal_level": "logical"}, "replica; in effect: logical"),
        ({"effective_wal_level": "logical", "standby": True}, "replica; in effect: logical"),
    ],
)
def test_a_server_that_raises_its_wal_level_by_itself(
    changed: dict[str, object], told: str
) -> None:
    facts = replace(GOOD, **{**OWN_LEVEL, "hot_standby_feedback": True, **changed})  # type: ignore[arg-type]
    assert bad(facts) == []
    assert [f.sentence for f in source_findings(facts) if f.subject == "wal_level"] == [told]


def test_a_standby_without_publication_has_one_finding() -> None:
    facts = replace(GOOD, standby=True, hot_standby_feedback=True, publication=MISSING)
    (found,) = bad(facts)
    assert found.level is Level.FAIL
    assert found.subject == "publication pub"
    assert found.cure == f"run on the primary, as the tables' owner: {MISSING.statement}"
    told = " ".join(f.sentence for f in source_findings(facts))
    assert "creates it" not in told.replace("a standby cannot create it", "")


CASES = [
    ({"version": 130011}, Level.FAIL, "PostgreSQL 13 is not supported", "upgrade it to 14"),
    ({"version": 150001, "standby": True}, Level.FAIL, "a standby of PostgreSQL 15", "primary"),
    ({"standby": True}, Level.WARN, "hot_standby_feedback", "ALTER SYSTEM SET hot_standby_feed"),
    ({**OWN_LEVEL, "version": 180006}, Level.FAIL, "is replica", "ALTER SYSTEM SET"),
    ({**OWN_LEVEL, "wal_level": "minimal"}, Level.FAIL, "is minimal", "ALTER SYSTEM SET"),
    (
        {**OWN_LEVEL, "standby": True, "hot_standby_feedback": True},
        Level.FAIL,
        "is replica (in effect: replica)",
        "on the primary: ALTER SYSTEM SET",
    ),
    (
        {
            "standby": True,
            "hot_standby_feedback": True,
            "publication": PublicationFacts("pub", exists=True, manageable=False),
        },
        Level.WARN,
        "a standby cannot add tables to it",
        "once its owner adds them on the primary",
    ),
    (
        {"tables": {1: replace(TABLE, relations_locked=18_000)}},
        Level.WARN,
        "room for 6400 locks; a run holds up to 36000 at a time",
        "ALTER SYSTEM SET max_locks_per_transaction = '1440'",
    ),
    ({"wal_level": "replica"}, Level.FAIL, "is replica", "ALTER SYSTEM SET wal_level = logical"),
    (
        {"wal_level": "replica", "provider": Provider.RDS},
        Level.FAIL,
        "is replica",
        "rds.logical_replication = 1",
    ),
    (
        {"wal_level": "replica", "provider": Provider.CLOUD_SQL},
        Level.FAIL,
        "is replica",
        "cloudsql.logical_decoding=on",
    ),
    ({"wal_level": "replica", "provider": Provider.AZURE}, Level.FAIL, "is replica", "az postgres"),
    ({"wal_level": "replica", "provider": Provider.NEON}, Level.FAIL, "is replica", "Neon Console"),
    (
        {"role": replace(ROLE, replication=False)},
        Level.FAIL,
        "may not use replication slots",
        "ALTER ROLE cdc REPLICATION",
    ),
    (
        {"role": replace(ROLE, replication=False), "provider": Provider.RDS},
        Level.FAIL,
        "may not use replication slots",
        "GRANT rds_replication TO cdc",
    ),
    (
        {"role": replace(ROLE, read_control_data=False)},
        Level.FAIL,
        "may not read the cluster's identifier",
        "GRANT EXECUTE ON FUNCTION pg_control_system() TO cdc",
    ),
    (
        {
            "role": replace(ROLE, name="My Role", create_publications=False),
            "publication": PublicationFacts("pub", exists=False, manageable=False),
        },
        Level.FAIL,
        "may not create it",
        'GRANT CREATE ON DATABASE db TO "My Role"',
    ),
    (
        {"publication": PublicationFacts("pub", exists=True, manageable=False)},
        Level.WARN,
        "used as it is",
        "once its owner adds them",
    ),
    (
        {"replication_slots": 9},
        Level.FAIL,
        "1 of 10 free; 2 needed",
        "slots = '15'",
    ),
    ({"replication_slots": 10, "slot": SLOT}, Level.FAIL, "0 of 10 free; 1 needed", "slots = '15'"),
    ({"wal_senders": 10}, Level.FAIL, "0 of 10 free", "ALTER SYSTEM SET max_wal_senders = '15'"),
    ({"slot_wal_limit": None}, Level.WARN, "no limit", "max_slot_wal_keep_size = '64GB'"),
    (
        {"slot_wal_limit": None, "provider": Provider.SUPABASE},
        Level.WARN,
        "no limit",
        "supabase postgres-config update --config max_slot_wal_keep_size=64GB",
    ),
    ({"slot_idle_limit": 3600.0}, Level.WARN, "3600 s", "idle_replication_slot_timeout = '7d'"),
    ({"sender_timeout": 2.0}, Level.WARN, "2 s is short", "wal_sender_timeout = '60s'"),
    (
        {"transactions": [OpenTransaction(61.0, 77, "psql")]},
        Level.WARN,
        "open for 61 s; a snapshot waits until it ends (psql)",
        "SELECT * FROM pg_stat_activity WHERE pid = 77",
    ),
    (
        {"transactions": [OpenTransaction(90000.0, None, "", "it's")]},
        Level.WARN,
        "open for 90000 s",
        "have its transaction manager end it",
    ),
]


@pytest.mark.parametrize(("change", "level", "sentence", "cure"), CASES)
def test_what_is_wrong_is_found_with_its_cure(change, level, sentence, cure) -> None:
    (found,) = bad(replace(GOOD, **change))
    assert found.level is level
    assert sentence in f"{found.subject} {found.sentence}"
    assert cure in found.cure


HISTORY = [
    (None, None, Level.OK, "does not exist yet"),
    (SLOT, None, Level.WARN, "this destination has no checkpoint"),
    (SLOT, Lsn(9), Level.OK, "continues the checkpoint"),
    (replace(SLOT, safe_bytes=5 << 20), Lsn(9), Level.WARN, "lost after 5 MB"),
    (None, Lsn(9), Level.FAIL, "does not exist"),
    (replace(SLOT, wal_status="lost"), Lsn(9), Level.FAIL, "is lost"),
    (replace(SLOT, confirmed_flush_lsn=Lsn(10)), Lsn(9), Level.FAIL, "past the checkpoint"),
]


@pytest.mark.parametrize(("slot", "checkpoint_lsn", "level", "sentence"), HISTORY)
def test_slot_against_checkpoint(slot, checkpoint_lsn, level, sentence) -> None:
    checkpoint = None if checkpoint_lsn is None else Checkpoint(IDENTITY, checkpoint_lsn)
    (found,) = continuity_findings(replace(GOOD, slot=slot), checkpoint)
    assert found.level is level
    assert sentence in found.sentence


def test_names_are_quoted_where_they_must_be() -> None:
    names = ["user", "plain_1", "Upper", "1st", 'say "hi"', "ä", ""]
    quoted = ['"user"', "plain_1", '"Upper"', '"1st"', '"say ""hi"""', '"ä"', '""']
    assert [quote(name) for name in names] == quoted


@pytest.mark.parametrize(
    ("retained", "limit", "wanted"),
    [(0, None, "64GB"), (100 << 30, None, "200GB"), (1 << 30, 5 << 30, "64GB"),
     (99 << 30, 100 << 30, "200GB"), ((33 << 30) - 1, 33 << 30, "66GB")],
)  # fmt: skip
def test_a_limit_on_wal_that_is_advised_ends_no_slot(retained, limit, wanted) -> None:
    """One that is lower than what a slot retains invalidates it at the next checkpoint."""
    slot = replace(SLOT, safe_bytes=5 << 20, retained_bytes=retained)
    facts = replace(GOOD, slot=slot, slot_wal_limit=limit, most_retained=retained)
    (low,) = continuity_findings(facts, Checkpoint(IDENTITY, Lsn(9)))
    cures = [low.cure]
    if limit is None:
        cures += [f.cure for f in source_findings(facts) if f.subject == "max_slot_wal_keep_size"]
    assert all(f"max_slot_wal_keep_size = '{wanted}'" in cure for cure in cures)


def test_what_is_another_roles_is_published_by_its_owner() -> None:
    owner, other = (TableFacts(True, True, mine, False) for mine in (True, False))
    role = replace(ROLE, create_publications=False)
    publication = PublicationFacts("pub", exists=False, manageable=False, statement="CREATE IT")
    facts = replace(GOOD, role=role, publication=publication, tables={1: owner})
    assert [f.cure for f in bad(facts)] == ["GRANT CREATE ON DATABASE db TO cdc"]
    facts = replace(facts, tables={1: owner, 2: other})
    assert [f.cure for f in bad(facts)] == ["CREATE IT"]
