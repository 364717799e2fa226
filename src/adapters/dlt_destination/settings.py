"""Settings of a destination on dlt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PipelineSettings:
    """`pipeline_name` keys the checkpoint in the dataset. `work_folder` is where packages are made,
    the system's temporary folder if None; nothing in it outlives a run."""

    pipeline_name: str
    dataset_name: str
    work_folder: Path | None = None


def local_folder(bucket_url: str) -> Path | None:
    """The folder of a `bucket_url`; None if it is an object store's."""
    path = bucket_url.removeprefix("file://")
    return None if "://" in path else Path(path).absolute()
