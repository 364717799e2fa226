"""A pipeline from a fresh database into a lake of each kind, by the container's own parts."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from entrypoints.container import Container
from entrypoints.settings import load_settings
from tests.support.lakes import LocalLake, WarehouseLake, lake_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cdc_core.check.findings import Finding
    from cdc_core.verify.report import ParityReport, TableParity


@dataclass
class Pipeline:
    """Each call is a run of its own, as from the command line."""

    lake: LocalLake | WarehouseLake
    monkeypatch: pytest.MonkeyPatch

    def snapshot(self) -> None:
        with self._container() as container:
            container.take_snapshot().run()

    def cdc(self) -> None:
        with self._container() as container:
            container.stream_changes().run()

    def verify(self, *, repair: bool = False) -> ParityReport:
        with self._container() as container:
            return container.verify_parity().run(repair=repair)

    def check(self, dsn: str = "") -> Sequence[Finding]:
        with self.monkeypatch.context() as patch:
            if dsn:
                patch.setenv("SOURCES__PG_REPLICATION__CREDENTIALS", dsn)
            with self._container() as container:
                return container.check_source().run()

    @contextmanager
    def _container(self) -> Iterator[Container]:
        container = Container.from_settings(load_settings())
        try:
            yield container
        finally:
            container.shutdown_resources()

    def lake_sql(self, table: str, delete: str) -> None:
        """Delete rows behind the pipeline's back."""
        if isinstance(self.lake, WarehouseLake):
            self.lake.execute(f"DELETE FROM bronze.`{table}` WHERE {delete}")
            return
        if self.lake.kind == "duckdb":
            import duckdb

            with duckdb.connect(str(self.lake.path / "lake.duckdb")) as connection:
                connection.execute(f'DELETE FROM bronze."{table}" WHERE {delete}')
            return
        from deltalake import DeltaTable

        DeltaTable(self.lake.path / "lakehouse" / "bronze" / table).delete(delete)

    def copy_rows(self, table: str, where: str) -> None:
        """Double rows behind the pipeline's back."""
        if isinstance(self.lake, WarehouseLake):
            name = f"bronze.`{table}`"
            self.lake.execute(f"INSERT INTO {name} SELECT * FROM {name} WHERE {where}")
            return
        if self.lake.kind == "duckdb":
            import duckdb

            with duckdb.connect(str(self.lake.path / "lake.duckdb")) as connection:
                name = f'bronze."{table}"'
                connection.execute(f"INSERT INTO {name} SELECT * FROM {name} WHERE {where}")
            return
        import duckdb
        from deltalake import DeltaTable, write_deltalake

        delta = DeltaTable(self.lake.path / "lakehouse" / "bronze" / table)
        rows = delta.to_pyarrow_table()
        with duckdb.connect() as connection:
            connection.register("rows", rows)
            picked = connection.sql(f"SELECT * FROM rows WHERE {where}").to_arrow_table()
        write_deltalake(delta, picked.cast(rows.schema), mode="append")

    def change_rows(self, table: str, where: str, **values: str) -> None:
        """Change rows behind the pipeline's back; values are SQL."""
        if isinstance(self.lake, LocalLake) and self.lake.kind == "delta":
            from deltalake import DeltaTable

            delta = DeltaTable(self.lake.path / "lakehouse" / "bronze" / table)
            delta.update(values, predicate=where)
            return
        assigned = ", ".join(f"{name} = {value}" for name, value in values.items())
        statement = f"UPDATE bronze.{table} SET {assigned} WHERE {where}"
        if isinstance(self.lake, WarehouseLake):
            self.lake.execute(statement)
            return
        import duckdb

        with duckdb.connect(str(self.lake.path / "lake.duckdb")) as connection:
            connection.execute(statement)


def line(report: ParityReport, table: str) -> TableParity:
    return next(found for found in report.tables if found.table == f"public.{table}")


@pytest.fixture(params=["duckdb", "delta", "databricks"])
def pipeline(
    request: pytest.FixtureRequest,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Pipeline:
    lake = lake_of(request.param, tmp_path, request)
    monkeypatch.chdir(tmp_path)
    environment = {
        **lake.environment,
        "DLT_PROJECT_DIR": str(tmp_path),
        "SOURCES__PG_REPLICATION__CREDENTIALS": database,
        "SOURCES__PG_REPLICATION__SLOT_NAME": "slot_" + database.rpartition("_")[2],
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Pipeline(lake, monkeypatch)
