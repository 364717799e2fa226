"""Where the tables of a dataset are: one folder each, local or in a bucket."""

from __future__ import annotations

import os
from typing import Any

from adapters.dlt_destination.dlt.filesystem_client import storage_options

LOG_FOLDER = "_delta_log"


def location(client: Any, table: str) -> str:
    folder: str = client.pathlib.join(client.dataset_path, table)
    if client.is_local_filesystem:
        return folder
    url: str = client.make_remote_url(folder)
    return url


def open_table(client: Any, table: str) -> Any:
    from deltalake import DeltaTable

    return DeltaTable(location(client, table), storage_options=storage_options(client))


def log_folder(client: Any, table: str) -> str:
    return str(client.pathlib.join(client.dataset_path, table, LOG_FOLDER))


def is_folder(files: Any, path: str) -> bool:
    """Like `isdir`, but raises if the store does not answer."""
    try:
        return bool(files.info(path)["type"] == "directory")
    except FileNotFoundError:
        return False


def last_part(place: str) -> str:
    """Return the last part of a path, which may be a URL's."""
    return os.path.basename(place)  # noqa: PTH119
