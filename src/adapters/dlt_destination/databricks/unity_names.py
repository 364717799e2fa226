"""Names in Unity Catalog: tables in lower case, without forbidden characters.

Source: Databricks SQL reference, "Names"; Delta Lake documentation, "Rename and drop columns with
Delta Lake column mapping".
"""

from __future__ import annotations

import hashlib
import re
from typing import TypeVar

Value = TypeVar("Value")

_CONTROLS = "".join(map(chr, (*range(0x20), 0x7F)))
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
#: The characters in the manual. It does not say which spaces, so all of Unicode's.
FORBIDDEN_BY_CATALOG = f"./{_CONTROLS}{_SPACES}"
_FORBIDDEN = re.compile(f"[{re.escape(FORBIDDEN_BY_CATALOG)}]")
_MAPPED_IN_COLUMNS = re.compile(r"[ ,;{}()\n\t=]")
_LONGEST = 255


def table_name(name: str) -> str:
    """Return the table's name in the catalog. Names that differ by more than case stay different.

    Mapped names (`cdc_core.values.naming`) only need lower case; older checkpoints have others.
    """
    lowered = name.lower()
    allowed = _FORBIDDEN.sub("_", lowered)
    if allowed == lowered and len(allowed) <= _LONGEST:
        return allowed
    mark = hashlib.sha256(lowered.encode()).hexdigest()[:8]
    return f"{allowed[: _LONGEST - 9]}_{mark}"


def column_needs_mapping(name: str) -> bool:
    """Whether Delta needs column mapping for a column of this name."""
    return bool(_MAPPED_IN_COLUMNS.search(name))


class TablesByName(dict[str, Value]):
    """A dictionary by table name. It finds a table by its own name and by the catalog's name."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(table_name(str(name)))

    def __getitem__(self, name: str) -> Value:
        return super().__getitem__(table_name(name))

    def __setitem__(self, name: str, value: Value) -> None:
        super().__setitem__(table_name(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(table_name(name))

    def get(self, name: str, default: Value | None = None) -> Value | None:  # type: ignore[override]
        return super().get(table_name(name), default)
