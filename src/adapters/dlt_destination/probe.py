"""The table by which a store finds out whether it may write: made, written and dropped at once."""

from __future__ import annotations

from uuid import uuid4

#: The only column of the file that is written to it.
PROBE_COLUMN = "written"


def probe_name() -> str:
    """A name that no other check has at the same time, and that no listing of tables shows."""
    return f"_dlt_write_test_{uuid4().hex[:12]}"
