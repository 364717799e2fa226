"""A file that readers see whole: the old one or the new one, never a part."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cdc_core.values.errors import SettingsError


class AtomicFile:
    """A file to be replaced. `option` names it in errors, which come before any work is done."""

    def __init__(self, file: str, option: str) -> None:
        self.path = Path(file)
        if self.path.is_dir():
            raise SettingsError(f"{option} {file} is a folder", "name a file")
        if not os.access(self.path.parent, os.W_OK):
            there = "cannot be written" if self.path.parent.is_dir() else "does not exist"
            raise SettingsError(
                f"{option} {file}: its folder {there}",
                "name a file in a folder that can be written",
            )

    def write(self, content: str) -> None:
        """Replace the file. A killed process leaves the old one, and perhaps a hidden file."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with part.open("w", encoding="utf-8") as written:
                written.write(content)
                written.flush()
                os.fsync(written.fileno())
            part.replace(self.path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise
