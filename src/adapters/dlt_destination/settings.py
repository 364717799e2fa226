"""Settings of a destination on dlt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class PipelineSettings:
    """`pipeline_name` keys the checkpoint in the dataset. `work_folder` is where packages are made,
    the system's temporary folder if None; nothing in it outlives a run."""

    pipeline_name: str
    dataset_name: str
    work_folder: Path | None = None
