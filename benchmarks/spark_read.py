"""Read a table to Parquet by Spark, or by this process alone. The last line printed is the time.

Run: python -m benchmarks.spark_read copy|workers|dataframe|jdbc TABLE FOLDER, with the settings in
the environment. The time counts from a started Spark, whose workers have run once.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adapters.pgoutput.snapshot.snapshot_source import PgSnapshotSource
from adapters.spark import PostgresSnapshot, open_snapshot, snapshot_source
from adapters.spark.snapshot_source import SparkSnapshotSource
from benchmarks.to_parquet import relation_to_parquet
from cdc_core.fold.snapshot_rows import SnapshotRows
from cdc_core.ports.snapshot_source import WHOLE
from cdc_core.tables.schema_change import state_when_read
from entrypoints.container import Container, source_settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from cdc_core.ports.snapshot_source import SnapshotSource

#: Where Debian's `libpostgresql-jdbc-java` puts the driver.
JDBC = Path("/usr/share/java/postgresql.jar")
CONNECTIONS = 4


def started(*jars: Path) -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.driver.memory", "2g").config("spark.log.level", "ERROR")
    if jars:
        builder = builder.config("spark.jars", ",".join(map(str, jars)))
    spark = builder.getOrCreate()
    spark.range(8, numPartitions=4).mapInArrow(lambda batches: batches, "id long").count()
    return spark


def end(spark: SparkSession) -> None:
    """End Java too, and wait for it, so that its CPU time counts."""
    from pyspark import SparkContext

    spark.stop()
    gateway: Any = SparkContext._gateway
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(60)


def by_workers(spark: SparkSession, container: Container, folder: Path) -> None:
    """The workers write the rows, as in a full load."""
    snapshot_source.LARGE_PAGES = 0  # whatever the size of the case
    (table,) = container.catalog().tables()
    settings, numbers = source_settings(container.settings()), count()
    source = SparkSnapshotSource(settings, CONNECTIONS, lambda: spark)
    with source.begin(create_slot=False) as snapshot:
        state, _ = state_when_read(None, table, table.relation.table.name, snapshot.lsn)
        rows = SnapshotRows.of(state, table, snapshot)
        snapshot.write_files(table.relation, WHOLE, rows, lambda: f"{folder}/{next(numbers)}")
    shutil.rmtree(folder / "0")  # of the probe


def by_driver(source: SnapshotSource, container: Container, folder: Path) -> None:
    """This process writes the rows."""
    (table,) = container.catalog().tables()
    with source.begin(create_slot=False) as snapshot:
        snapshot.expect([(table.relation, "")])
        relation_to_parquet(snapshot, table.relation, folder)


def by_data_source(spark: SparkSession, dsn: str, table: str, folder: Path) -> None:
    """The workers write the rows."""
    spark.dataSource.register(PostgresSnapshot)
    with open_snapshot(dsn) as snapshot:
        given = {**snapshot.options, "table": table, "maxConnections": str(CONNECTIONS)}
        frame = spark.read.format("pgbronze").options(**given).load()
        frame.write.mode("overwrite").parquet(str(folder))


def by_jdbc(spark: SparkSession, dsn: str, table: str, folder: Path) -> None:
    place = urlsplit(dsn)
    options: dict[str, Any] = {
        "url": f"jdbc:postgresql://{place.hostname}:{place.port}{place.path}",
        "user": place.username or "",
        "password": place.password or "",
        "driver": "org.postgresql.Driver",
        "fetchsize": "10000",
    }
    bounds = spark.read.format("jdbc").options(**options)
    row = bounds.option("query", f"SELECT min(id), max(id) FROM {table}").load().first()
    assert row is not None
    frame = spark.read.format("jdbc").options(**options).option("dbtable", table)
    frame = frame.option("partitionColumn", "id").option("numPartitions", str(CONNECTIONS))
    frame = frame.option("lowerBound", str(row[0])).option("upperBound", str(row[1]))
    frame.load().write.mode("overwrite").parquet(str(folder))


def main(way: str, table: str, folder: Path) -> None:
    container = Container()
    settings = source_settings(container.settings())
    spark = None if way == "copy" else started(*([JDBC] if way == "jdbc" else []))
    begun = time.perf_counter()
    match way:
        case "copy":
            by_driver(PgSnapshotSource(settings), container, folder)
        case "workers":
            assert spark is not None
            by_workers(spark, container, folder)
        case "dataframe":
            assert spark is not None
            by_data_source(spark, settings.conninfo, table, folder)
        case "jdbc":
            assert spark is not None
            by_jdbc(spark, settings.conninfo, table, folder)
        case _:
            raise SystemExit(f"no such way: {way}")
    seconds = time.perf_counter() - begun
    container.shutdown_resources()
    if spark is not None:
        end(spark)
    print(seconds)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
