"""The contract of receipts on every destination but the warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from adapters.dlt_destination.delta.factory import delta_destination
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.settings import PipelineSettings
from adapters.fakes import InMemoryDestination, Lake
from cdc_core.values.runs import RUN_TABLES_TABLE, RunTable
from tests.contracts.run_log_contract import RunLogContract

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cdc_core.ports.destination import Destination


class TestDuckDb(RunLogContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Destination]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        return lambda: duckdb_destination(settings, str(tmp_path / "lake.duckdb"))

    @pytest.fixture
    def run_tables(self, tmp_path: Path) -> Callable[[], list[RunTable]]:
        def read() -> list[RunTable]:
            import duckdb

            with duckdb.connect(tmp_path / "lake.duckdb", read_only=True) as connection:
                rows = connection.execute(f"FROM bronze.{RUN_TABLES_TABLE}").fetchall()
            return [RunTable(*row) for row in rows]

        return read


class TestDelta(RunLogContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[], Destination]:
        settings = PipelineSettings("pgbronze", "bronze", tmp_path / "work")
        return lambda: delta_destination(settings, str(tmp_path / "lake house"))

    @pytest.fixture
    def run_tables(self, tmp_path: Path) -> Callable[[], list[RunTable]]:
        def read() -> list[RunTable]:
            from deltalake import DeltaTable

            delta = DeltaTable(tmp_path / "lake house" / "bronze" / RUN_TABLES_TABLE)
            return [RunTable(**row) for row in delta.to_pyarrow_table().to_pylist()]

        return read

    def test_many_small_commits_are_compacted(
        self, opened: Callable[[], Destination], tmp_path: Path
    ) -> None:
        from dataclasses import replace

        from deltalake import DeltaTable

        from tests.contracts.run_log_contract import EMPTY_BATCH, FULL, checkpoint

        with opened() as destination:
            destination.load(EMPTY_BATCH, checkpoint(1))
            for seq in range(45):
                destination.write_receipt(replace(FULL, seq=seq), [])
            assert len(destination.receipts(100)) == 45
        files = DeltaTable(tmp_path / "lake house" / "bronze" / "_cdc_runs").file_uris()
        assert len(files) < 20


class TestInMemory(RunLogContract):
    @pytest.fixture
    def lake(self) -> Lake:
        return Lake()

    @pytest.fixture
    def opened(self, lake: Lake) -> Callable[[], Destination]:
        return lambda: InMemoryDestination(lake)

    @pytest.fixture
    def run_tables(self, lake: Lake) -> Callable[[], list[RunTable]]:
        return lambda: lake.run_tables
