"""The state of a run that the destination shares with its store and with dlt's clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from adapters.dlt_destination.files.written_files import WrittenFiles


@dataclass
class Run:
    """Until a run `writes`, it creates nothing. `begins`: dlt found no state, so any of dlt's own
    tables can be missing. `folder` holds the run's files, `written` those of rows that wait."""

    writes: bool = False
    begins: bool = False
    folder: Path = field(default_factory=Path)
    #: Files that workers wrote where the destination reads them, by the name of their rows; and the
    #: names for which a list of these files is stored, so that they outlive the run.
    by_workers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)

    @property
    def written(self) -> WrittenFiles:
        return WrittenFiles(self.folder / "written")
