"""All statements of a batch as one `BEGIN ATOMIC … END`.

Tables and checkpoint then change in one commit: no reader sees one table's batch without another's.
Source: Databricks documentation, "Transactions", "ATOMIC compound statement", "Catalog commits",
"TRANSACTION_NOT_SUPPORTED error condition".
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

#: The property that a transaction needs on each table, and the option for reading a plain file.
CATALOG_COMMITS = {"delta.feature.catalogManaged": "supported"}
READ_FILES = " WITH (allow_nontransactional_reads = true)"

ENDED_AT_ONCE = 8

_NOT_MANAGED = re.compile(r"\[\w*TRANSACTION_NOT_SUPPORTED\.WRITE_NON_CATALOG_OWNED_TABLE\]")
_LACKING = re.compile(
    r"\[(\w*TRANSACTION_NOT_SUPPORTED[.\w]*|PARSE_SYNTAX_ERROR|DELTA_\w*FEATURE\w*|UNSUPPORTED_FEATURE"
    r"[.\w]*)\]"
)


class MultiTableTransaction:
    """The statements of one batch; those of one table are in order. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statements: list[tuple[str, tuple[Any, ...]]] = []
        self._staged: list[AbstractContextManager[str]] = []
        self.tables: set[str] = set()

    def enter(self, staged: AbstractContextManager[str]) -> str:
        """Enter a context until `clear`; return its value."""
        given = staged.__enter__()
        with self._lock:
            self._staged.append(staged)
        return given

    def add(self, statement: str, *values: Any, table: str | None = None) -> None:
        """Add a statement. `values` replace its `%s`."""
        with self._lock:
            self._statements.append((statement, values))
            if table is not None:
                self.tables.add(table)

    def text(self) -> tuple[str, tuple[Any, ...]]:
        """Return the block, and the values for all its `%s`."""
        parts = [
            statement if values else statement.replace("%", "%%")
            for statement, values in self._statements
        ]
        values = tuple(value for _, given in self._statements for value in given)
        body = "".join(f"{part};\n" for part in parts)
        return f"BEGIN ATOMIC\n{body}END;", values

    def clear(self) -> None:
        """Remove the statements and exit the contexts."""
        with self._lock:
            self._statements.clear()
            self.tables.clear()
            staged, self._staged = self._staged, []
        if staged:  # in parallel: each deletes its files, one round trip or more
            with ThreadPoolExecutor(ENDED_AT_ONCE) as pool:
                list(pool.map(lambda context: context.__exit__(None, None, None), staged))


def lacks_catalog_commits(error: BaseException) -> bool:
    """Whether a table of the block lacks the property that a transaction needs."""
    return bool(_NOT_MANAGED.search(str(error)))


def lacks_transactions(error: BaseException) -> SettingsError | None:
    """Return the error if the workspace does not support transactions, or not for these tables."""
    if not (found := _LACKING.search(str(error))):
        return None
    return SettingsError(
        "destination.databricks.multi_table_transaction = true: the warehouse refused the "
        f"transaction ({found[1]})",
        "set it to false, or give the workspace and the tables what transactions need: catalog "
        "commits, and a SQL warehouse that runs BEGIN ATOMIC",
    )
