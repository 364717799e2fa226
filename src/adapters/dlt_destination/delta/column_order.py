"""Change the order of a Delta table's columns; delta-rs can do that only by rewriting the table.

This is one metadata commit and changes no file: readers find columns by name. Source: Delta
protocol, "Change Metadata", "Delta Log Entries".
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_IN_COMMIT_TIMESTAMPS = "delta.enableInCommitTimestamps"


def order_columns(delta: Any, files: Any, log_folder: str, names: Sequence[str]) -> None:
    """Give a table's columns this order. The order stays unchanged if another tool commits first.

    `delta` is delta-rs' table, `files` fsspec's file system, `log_folder` the log's folder there.
    """
    schema = json.loads(delta.schema().to_json())
    held = [field["name"] for field in schema["fields"]]
    metadata = delta.metadata()
    if held == list(names) or metadata.configuration.get(_IN_COMMIT_TIMESTAMPS) == "true":
        return
    places = {name: place for place, name in enumerate(names)}
    schema["fields"].sort(key=lambda field: places[field["name"]])
    actions: list[dict[str, Any]] = [
        {
            "commitInfo": {
                "timestamp": time.time_ns() // 1_000_000,
                "operation": "CHANGE COLUMN",
                "operationParameters": {},
            }
        },
        {
            "metaData": {
                "id": metadata.id,
                "name": metadata.name,
                "description": metadata.description,
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps(schema),
                "partitionColumns": metadata.partition_columns,
                "createdTime": metadata.created_time,
                "configuration": metadata.configuration,
            }
        },
    ]
    entry = f"{log_folder}/{delta.version() + 1:020}.json"
    text = "".join(json.dumps(action) + "\n" for action in actions)
    # Exclusive creation: another tool can have written this version, and not every store can check.
    with contextlib.suppress(FileExistsError, NotImplementedError, ValueError):
        _write(files, entry, text.encode())


def _write(files: Any, entry: str, text: bytes) -> None:
    """Write all or nothing: no reader can open a table with half an entry."""
    if "file" not in files.protocol:
        with files.open(entry, "xb") as file:
            file.write(text)
        return
    whole = Path(f"{entry}.{os.urandom(8).hex()}.tmp")
    try:
        whole.write_bytes(text)
        Path(entry).hardlink_to(whole)
    finally:
        whole.unlink(missing_ok=True)
