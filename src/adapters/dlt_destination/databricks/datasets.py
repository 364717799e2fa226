"""The dataset and its staging dataset on Databricks, with their volumes: list, drop, try to write.

Source: Databricks SQL reference, "DROP SCHEMA", "INFORMATION_SCHEMA".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from adapters.dlt_destination.databricks.definitions import qualified
from adapters.dlt_destination.sql.dialect import SPARK
from adapters.dlt_destination.store import PROBE_COLUMN, probe_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from adapters.dlt_destination.databricks.volume_staging import VolumeStaging


def datasets(client: Any) -> list[str]:
    """Return which of the dataset and its staging dataset exist."""
    sql = client.sql_client
    rows = sql.execute_sql(
        f"SELECT schema_name FROM {sql.catalog_name()}.information_schema.schemata "
        "WHERE schema_name IN (%s, %s) ORDER BY schema_name",
        sql.dataset_name.lower(),
        sql.staging_dataset_name.lower(),
    )
    return [name for (name,) in rows or ()]


def drop_dataset(client: Any, dataset: str) -> None:
    sql = client.sql_client
    sql.execute_sql(f"DROP SCHEMA IF EXISTS {sql.catalog_name()}.{SPARK.quote(dataset)} CASCADE")


def files_by_volume(volumes: Sequence[VolumeStaging]) -> dict[str, Sequence[str]]:
    """Return the files of the volumes that exist."""
    found = {volume.name: volume.files() for volume in volumes}
    return {name: files for name, files in found.items() if files is not None}


def try_writing(client: Any, volumes: Sequence[VolumeStaging], file: Path) -> None:
    """Create a table, merge the file's row from each volume, and drop what was created."""
    there, held = datasets(client), files_by_volume(volumes)
    table, send = qualified(client, probe_name()), client.sql_client.execute_sql
    try:
        if not client.is_storage_initialized():
            client.initialize_storage()
        send(f"CREATE TABLE {table} ({PROBE_COLUMN} BIGINT)")
        for volume in volumes:
            with volume.staged([file]) as rows:
                send(
                    f"MERGE INTO {table} AS t USING (SELECT {PROBE_COLUMN} FROM {rows}) AS s "
                    f"ON t.{PROBE_COLUMN} = s.{PROBE_COLUMN} "
                    f"WHEN NOT MATCHED THEN INSERT ({PROBE_COLUMN}) VALUES (s.{PROBE_COLUMN})",
                )
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the cause
            _drop_what_was_made(client, table, volumes, there, held)
        raise
    _drop_what_was_made(client, table, volumes, there, held)


def _drop_what_was_made(
    client: Any,
    table: str,
    volumes: Sequence[VolumeStaging],
    there: Collection[str],
    held: Mapping[str, Sequence[str]],
) -> None:
    """Drop the table, and the volumes and datasets that did not exist before."""
    made = [name for name in datasets(client) if name not in there]
    if client.sql_client.dataset_name.lower() not in made:
        client.sql_client.execute_sql(f"DROP TABLE IF EXISTS {table}")
    for volume in volumes:
        if volume.dataset not in made and volume.name not in held:
            volume.drop()
    for dataset in made:
        drop_dataset(client, dataset)
