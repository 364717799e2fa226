"""Temporary files of the tests in memory, where the machine has room for them.

A new database is a thousand files, and creating and dropping it on a disk takes six times the CPU
time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

FOLDER = Path("/dev/shm")

#: A whole run of the tests needs less than half of it.
ROOM = 6 << 30


def use() -> None:
    """Make it the folder for temporary files, of commands that tests start too. An operator's own
    choice stays."""
    if "TMPDIR" in os.environ or not os.access(FOLDER, os.W_OK):
        return
    if shutil.disk_usage(FOLDER).free > ROOM:
        os.environ["TMPDIR"] = str(FOLDER)
        tempfile.tempdir = None


def kind() -> str:
    return tempfile.gettempdir()
