"""What a load package carries for a table: a list of its Parquet files, as JSON lines.

The files stay where they were written; the load job reads them there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from adapters.dlt_destination.plan import Step


@dataclass(frozen=True)
class Manifest:
    """The file that a load package has for a table: names and rows of its Parquet files."""

    path: Path
    rows: int

    @classmethod
    def write(cls, path: Path, steps: list[Step]) -> Manifest:
        lines = [
            {"step": type(step).__name__, "rows": step.rows, "files": [str(p) for p in step.paths]}
            for step in steps
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        return cls(path, sum(step.rows for step in steps))
