"""What every `SourceInspector` promises; a subclass says which, and over which database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdc_core.check.findings import Level
from cdc_core.check.source_rules import source_findings
from cdc_core.ports.source_inspector import Provider

if TYPE_CHECKING:
    from tests.contracts.sources import SourceUnderTest


class SourceInspectorContract:
    @pytest.fixture
    def db(self) -> SourceUnderTest:
        raise NotImplementedError

    def test_facts_of_a_server_on_which_nothing_is_missing(self, db: SourceUnderTest) -> None:
        oid = db.create_table("orders")
        db.create_table("elsewhere", schema="other")
        facts = db.inspector().facts()
        assert facts.version >= 140000
        assert facts.provider is Provider.SELF
        assert facts.wal_level == "logical"
        assert not facts.standby
        role = facts.role
        assert role.name
        assert (role.replication, role.create_publications, role.read_control_data) == (True,) * 3
        assert facts.slot_name == db.slot_name
        assert facts.slot is None
        assert not facts.publication.exists
        assert not facts.publication.manageable
        assert facts.max_replication_slots > facts.replication_slots >= 0
        assert facts.max_wal_senders > facts.wal_senders >= 0
        assert facts.slot_wal_limit is None or facts.slot_wal_limit >= 0
        assert facts.sender_timeout is None or facts.sender_timeout > 0
        assert list(facts.tables) == [oid]
        table = facts.tables[oid]
        assert (table.schema_usage, table.select, table.owner) == (True,) * 3
        assert not table.hidden_rows
        assert list(table.generated_columns) == []
        assert Level.FAIL not in {finding.level for finding in source_findings(facts)}

    def test_facts_of_a_run_under_way_and_nothing_changes(self, db: SourceUnderTest) -> None:
        db.create_table("orders")
        db.catalog().publish()
        with db.change_source() as source:
            before = db.inspector().facts()
            point = source.create_slot()
            facts = db.inspector().facts()
            assert facts.identity == source.identity()
            assert facts.database == source.identity().database
            assert facts.publication.exists
            assert facts.publication.manageable
            assert facts.slot is not None
            assert facts.slot.confirmed_flush_lsn == point
            assert facts.replication_slots == before.replication_slots + 1
            assert db.inspector().facts().slot == source.slot()
            assert [t.published for t in db.catalog().tables()] == [True]
