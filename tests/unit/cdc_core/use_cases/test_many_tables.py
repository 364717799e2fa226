"""Work grows with the tables, not with their square: counted, not timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.fakes import InMemoryDestination, InMemorySource
from adapters.fakes.snapshot import InMemorySnapshot
from cdc_core.full_load import read_tables
from cdc_core.use_cases import verify_parity
from cdc_core.use_cases.verify_parity import VerifyParity
from tests.support.fake_world import COLUMNS, World

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pytest

    from cdc_core.ports.catalog import SourceTable

TABLES = 12


def of_many_tables() -> World:
    world = World()
    for n in range(TABLES):
        world.postgres.create_table(f"t{n}", COLUMNS)
    return world


def test_each_group_asks_the_catalog_for_its_own_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []
    tables = InMemorySource.tables

    def counted(
        source: InMemorySource, oids: Collection[int] | None = None
    ) -> Sequence[SourceTable]:
        asked.append(None if oids is None else len(oids))
        return tables(source, oids)

    monkeypatch.setattr(InMemorySource, "tables", counted)
    monkeypatch.setattr(read_tables, "GROUP_TABLES", 3)
    world = of_many_tables()
    world.snapshot()
    world.assert_equal()
    assert asked.count(None) <= 1
    assert [count for count in asked if count is not None] == [3] * (TABLES // 3)


def test_verify_announces_what_it_will_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source opens its sessions once then; a window of tables, so that one that differs, which
    is read again and voids it, costs no more than the window."""
    expected: list[int] = []
    monkeypatch.setattr(
        InMemorySnapshot, "expect", lambda _, readings: expected.append(len(readings))
    )
    monkeypatch.setattr(verify_parity, "EXPECTED_TABLES", 5)
    world = of_many_tables()
    world.snapshot()
    expected.clear()
    source, destination = world.source(), InMemoryDestination(world.lake)
    assert VerifyParity(source, source, source, destination).run().equal
    assert expected == [5, 5, 2]
