"""Reading a destination on this machine as a stranger would, without the product."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.spark_engine import ENGINE, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    import pytest

    from tests.integration.warehouse.client import Warehouse


class Lake:
    """A destination that can be read whole."""

    def read(self, table: str) -> pa.Table:
        """The whole table, every column."""
        raise NotImplementedError

    def drop(self, table: str) -> None:
        """Drop a table, as somebody might; nothing if it is not there."""
        raise NotImplementedError

    def rows(self, table: str, *columns: str) -> list[tuple[object, ...]]:
        stored = self.read(table)
        lists = [stored.column(name).to_pylist() for name in columns]
        return list(zip(*lists, strict=True))


@dataclass(frozen=True)
class LocalLake(Lake):
    """A DuckDB file or a folder of Delta tables, by `kind`."""

    kind: str
    path: Path

    @property
    def environment(self) -> dict[str, str]:
        settings = {"PIPELINE__DESTINATION": self.kind}
        if self.kind == "duckdb":
            settings["DESTINATION__DUCKDB__CREDENTIALS"] = str(self.path / "lake.duckdb")
        else:
            settings["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(self.path / "lakehouse")
        return settings

    def read(self, table: str) -> pa.Table:
        import duckdb

        if self.kind == "duckdb":
            with duckdb.connect(str(self.path / "lake.duckdb"), read_only=True) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                quoted = table.replace('"', '""')
                return connection.sql(f'SELECT * FROM bronze."{quoted}"').to_arrow_table()
        from deltalake import DeltaTable

        delta = DeltaTable(self._folder(table))
        return delta.to_pyarrow_dataset().to_table()

    def is_only_appended(self, table: str) -> bool:
        """Whether no version of a Delta table has taken back rows, so that a stream can read it."""
        commits = (self._folder(table) / "_delta_log").glob("*.json")
        actions = (json.loads(line) for commit in commits for line in commit.open())
        removed = [action["remove"] for action in actions if "remove" in action]
        return not any(remove["dataChange"] for remove in removed)

    def drop(self, table: str) -> None:
        import duckdb

        if self.kind == "delta":
            shutil.rmtree(self._folder(table), ignore_errors=True)
            return
        with duckdb.connect(str(self.path / "lake.duckdb")) as connection:
            connection.execute(f'DROP TABLE IF EXISTS bronze."{table}"')

    def _folder(self, table: str) -> Path:
        return self.path / "lakehouse" / "bronze" / table


@dataclass(frozen=True)
class WarehouseLake(Lake):
    """As `LocalLake`, of tables in the local warehouse, whose folders are read without it."""

    warehouse: Warehouse
    path: Path
    kind: str = "databricks"

    def __post_init__(self) -> None:
        """The settings, where a user keeps them: dlt's file of secrets."""
        credentials: dict[str, Any] = {"catalog": self.warehouse.catalog}
        if ENGINE == "warehouse":
            credentials = self.warehouse.dlt_credentials()
        parameters = credentials.pop("connection_parameters", {})
        lines = ["[destination.databricks.credentials]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in credentials.items()]
        lines += ["[destination.databricks.credentials.connection_parameters]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in parameters.items()]
        (self.path / ".dlt").mkdir()
        (self.path / ".dlt" / "secrets.toml").write_text("\n".join(lines))

    @property
    def environment(self) -> dict[str, str]:
        engine = settings_of(self.warehouse) if ENGINE == "spark" else {}
        return {"PIPELINE__DESTINATION": self.kind, **engine}

    def read(self, table: str) -> pa.Table:
        return self.warehouse.read_table("bronze", table)

    def drop(self, table: str) -> None:
        self.execute(f"DROP TABLE IF EXISTS bronze.`{table}`")

    def execute(self, statement: str) -> None:
        """What somebody else does to a table."""
        with self.warehouse.connect() as session, session.cursor() as cursor:
            cursor.execute(statement)


def lake_of(kind: str, path: Path, request: pytest.FixtureRequest) -> LocalLake | WarehouseLake:
    """A lake below the folder `path`; of kind "databricks" in the test's warehouse, or, for a test
    module, in the session's."""
    if kind != "databricks":
        return LocalLake(kind, path)
    if request.scope == "function":
        return WarehouseLake(request.getfixturevalue("warehouse"), path)
    warehouse = request.getfixturevalue("warehouse_server")
    warehouse.reset()
    return WarehouseLake(warehouse, path)
