"""Names as Unity Catalog keeps them: tables in lower case, without what it forbids.

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
#: The manual's and, as it does not say which spaces it means, all that Unicode has.
FORBIDDEN_BY_CATALOG = f"./{_CONTROLS}{_SPACES}"
_FORBIDDEN = re.compile(f"[{re.escape(FORBIDDEN_BY_CATALOG)}]")
_MAPPED_IN_COLUMNS = re.compile(r"[ ,;{}()\n\t=]")
_LONGEST = 255


def table_name(name: str) -> str:
    """The table's name in the catalog; of two that differ by more than case never the same.

    Mapped names (`cdc_core.values.naming`) only need lower case; older checkpoints have others.
    """
    lowered = name.lower()
    allowed = _FORBIDDEN.sub("_", lowered)
    if allowed == lowered and len(allowed) <= _LONGEST:
        return allowed
    mark = hashlib.sha256(lowered.encode()).hexdigest()[:8]
    return f"{allowed[: _LONGEST - 9]}_{mark}"


def column_needs_mapping(name: str) -> bool:
    """Whether Delta holds a column of this name by column mapping only."""
    return bool(_MAPPED_IN_COLUMNS.search(name))


class TablesByName(dict[str, Value]):
    """Something of each table by the catalog's name, found by the table's own name too."""

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
