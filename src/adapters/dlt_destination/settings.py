"""Settings of a destination on dlt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PipelineSettings:
    """`pipeline_name` identifies the checkpoint in the dataset. Packages are built in
    `work_folder`, by default the system's temporary folder; a run leaves nothing there."""

    pipeline_name: str
    dataset_name: str
    work_folder: Path | None = None


def local_folder(bucket_url: str) -> Path | None:
    """Return the folder that a `bucket_url` names; None for an object store."""
    path = bucket_url.removeprefix("file://")
    return None if "://" in path else Path(path).absolute()
