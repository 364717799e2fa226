"""What every `Catalog` promises; a subclass says which, and over which database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cdc_core.ports.catalog import Reason
from cdc_core.values.relation import ReplicaIdentity, TableName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cdc_core.ports.catalog import SourceTable
    from tests.contracts.sources import SourceUnderTest


def names(tables: Iterable[SourceTable]) -> list[str]:
    return [str(table.relation.table) for table in tables]


class CatalogContract:
    @pytest.fixture
    def db(self) -> SourceUnderTest:
        raise NotImplementedError

    def test_tables_come_by_name_as_they_are_now(self, db: SourceUnderTest) -> None:
        heap = db.create_table("heap", key=False)
        orders = db.create_table("orders")
        ants = db.create_table("ants")
        with db.transaction() as tx:
            tx.insert(orders, 1, "a")
        found = db.catalog().tables()
        assert names(found) == ["public.ants", "public.heap", "public.orders"]
        assert [table.relation.oid for table in found] == [ants, heap, orders]
        for table in found:
            columns = table.relation.columns
            assert table.relation.column_names == ("id", "note", "doc")
            assert [str(c.arrow_type) for c in columns] == ["int64", "string", "string"]
            assert [c.attnum for c in columns] == [1, 2, 3]
            assert not table.published
            assert table.not_streamed == ""
            assert table.estimated_rows >= 0
            assert table.total_bytes >= 0
        assert [t.relation.key for t in found] == [("id",), (), ("id",)]
        assert found[1].relation.identity is ReplicaIdentity.FULL
        assert found[2].relation.identity is ReplicaIdentity.DEFAULT

    def test_some_tables_are_described_as_among_all(self, db: SourceUnderTest) -> None:
        oids = [db.create_table(name) for name in ("a", "b", "c")]
        catalog = db.catalog()
        assert list(catalog.tables(oids[1:])) == list(catalog.tables())[1:]
        assert list(catalog.tables([])) == []

    def test_an_empty_database_has_none(self, db: SourceUnderTest) -> None:
        assert list(db.catalog().tables()) == []
        assert list(db.catalog().publish()) == []

    def test_schemas_are_those_of_the_settings_and_those_that_there_are(
        self, db: SourceUnderTest
    ) -> None:
        db.create_table("a", schema="sales")
        found = db.catalog(("public", "nosuch")).schemas_found()
        assert tuple(found.chosen) == ("public", "nosuch")
        assert list(found.there) == ["public", "sales"]

    def test_only_the_schemas_of_the_settings_less_the_excluded(self, db: SourceUnderTest) -> None:
        for schema, name in [("public", "a"), ("public", "b_log"), ("sales", "a"), ("hidden", "a")]:
            db.create_table(name, schema=schema)
        both = ("public", "sales")
        assert names(db.catalog().tables()) == ["public.a", "public.b_log"]
        assert names(db.catalog(both).tables()) == ["public.a", "public.b_log", "sales.a"]
        assert names(db.catalog(both, ["*_log"]).tables()) == ["public.a", "sales.a"]
        assert names(db.catalog(both, ["sales.*", "public.a"]).publish()) == ["public.b_log"]
        published = [t.relation.table for t in db.catalog(both).tables() if t.published]
        assert published == [TableName("public", "b_log")]

    def test_publishing_adds_what_can_be_streamed_and_is_repeatable(
        self, db: SourceUnderTest
    ) -> None:
        db.create_table("one")
        catalog = db.catalog()
        for _ in range(2):
            (one,) = catalog.publish()
            assert one.published
            assert list(catalog.tables()) == [one]
        db.create_table("two")
        assert [t.published for t in catalog.tables()] == [True, False]
        assert [t.published for t in catalog.publish()] == [True, True]
        assert [t.published for t in db.catalog().tables()] == [True, True]

    def test_publishing_makes_no_write_of_the_application_fail(self, db: SourceUnderTest) -> None:
        tables = {
            name: db.create_table(name, key=key, identity=identity)
            for name, key, identity in [
                ("keyless", False, ReplicaIdentity.DEFAULT),
                ("keyed", True, None),
                ("nothing", True, ReplicaIdentity.NOTHING),
                ("full", False, ReplicaIdentity.FULL),
            ]
        }
        found = {t.relation.table.name: t for t in db.catalog().publish()}
        assert {name for name, t in found.items() if t.published} == {"keyed", "full"}
        assert {name for name, t in found.items() if t.not_streamed} == {"keyless", "nothing"}
        for oid in tables.values():
            with db.transaction() as tx:
                tx.insert(oid, 1, "a")
                tx.set_note(oid, 1, "b")
                tx.delete(oid, 1)
        assert "REPLICA IDENTITY" in found["keyless"].not_streamed

    def test_publishing_takes_out_what_lost_its_identity(self, db: SourceUnderTest) -> None:
        kept, lost = db.create_table("kept"), db.create_table("lost")
        assert [t.published for t in db.catalog().publish()] == [True, True]
        db.set_identity(lost, ReplicaIdentity.NOTHING)
        found = {t.relation.oid: t for t in db.catalog().publish()}
        assert (found[kept].published, found[lost].published) == (True, False)
        assert found[lost].not_streamed
        with db.transaction() as tx:
            tx.insert(lost, 1, "a")
            tx.set_note(lost, 1, "b")
        db.set_identity(lost, ReplicaIdentity.FULL)
        assert all(t.published and not t.not_streamed for t in db.catalog().publish())

    def test_the_publication_is_dropped_once(self, db: SourceUnderTest) -> None:
        catalog = db.catalog()
        assert catalog.drop_publication() is False
        catalog.publish()  # of no table, but a publication
        assert catalog.drop_publication() is True
        assert catalog.drop_publication() is False
        db.create_table("one")
        catalog.publish()
        assert catalog.drop_publication() is True
        assert [t.published for t in catalog.tables()] == [False]
        assert [t.published for t in catalog.publish()] == [True]

    def test_names_may_change_and_numbers_stay(self, db: SourceUnderTest) -> None:
        oid = db.create_table("before")
        db.create_table("other")
        catalog = db.catalog()
        catalog.publish()
        db.rename_table(oid, "zebra")
        db.rename_column(oid, "note", "remark")
        db.drop_column(oid, "doc")
        db.add_column(oid, "doc")
        found = catalog.tables()
        assert names(found) == ["public.other", "public.zebra"]
        relation = found[1].relation
        assert relation.oid == oid
        assert [(c.name, c.attnum) for c in relation.columns] == [
            ("id", 1),
            ("remark", 2),
            ("doc", 4),
        ]
        assert found[1].published
        db.drop_table(oid)
        again = db.create_table("zebra")
        (_, zebra) = catalog.tables()
        assert zebra.relation.oid == again != oid
        assert not zebra.published

    def test_fingerprints_tell_what_leaves_no_row_events(self, db: SourceUnderTest) -> None:
        oid = db.create_table("t")
        catalog = db.catalog()
        with db.transaction() as tx:
            tx.insert(oid, 1, "a")

        def reason() -> str:
            nonlocal before
            (now,) = catalog.tables()
            before, old = now.fingerprint, before
            return now.fingerprint.reread_reason(old)

        before = catalog.tables()[0].fingerprint
        with db.transaction() as tx:
            tx.insert(oid, 2, "b")
            tx.set_id(oid, 1, 3)
            tx.delete(oid, 2)
        assert reason() == ""
        with db.transaction() as tx:
            tx.truncate(oid)
        assert reason() == ""
        db.add_column(oid, "more")
        assert reason() == ""
        db.rename_column(oid, "more", "less")
        db.rename_table(oid, "u")
        assert reason() == ""
        db.rewrite_notes(oid)
        assert reason() != ""
        assert reason() == ""

    def test_what_is_passed_over_is_named_with_the_reason(self, db: SourceUnderTest) -> None:
        for name in ("_dlt_loads", "_dltx", "kept", "left"):
            db.create_table(name)
        db.create_table("_dlt_elsewhere", schema="other")
        catalog = db.catalog(("public",), ["left"])
        assert names(catalog.tables()) == ["public.kept"]
        found = {str(one.table): one.reason for one in catalog.passed_over()}
        assert found == {
            "public._dlt_loads": Reason.RESERVED,
            "public._dltx": Reason.RESERVED,
            "public.left": Reason.EXCLUDED,
        }
