"""Reading a destination on this machine as a stranger would, without the product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


@dataclass(frozen=True)
class LocalLake:
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
        """The whole table, every column."""
        import duckdb

        if self.kind == "duckdb":
            with duckdb.connect(str(self.path / "lake.duckdb"), read_only=True) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                quoted = table.replace('"', '""')
                return connection.sql(f'SELECT * FROM bronze."{quoted}"').to_arrow_table()
        from deltalake import DeltaTable

        delta = DeltaTable(self.path / "lakehouse" / "bronze" / table)
        return delta.to_pyarrow_dataset().to_table()

    def rows(self, table: str, *columns: str) -> list[tuple[object, ...]]:
        stored = self.read(table)
        lists = [stored.column(name).to_pylist() for name in columns]
        return list(zip(*lists, strict=True))
