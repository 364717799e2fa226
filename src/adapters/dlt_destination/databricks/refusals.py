"""Errors of a warehouse that refuse one table: its definition, or one of its rows.

Source: Databricks documentation, "Error conditions", "SQLSTATE error codes".
"""

from __future__ import annotations

import re

from adapters.dlt_destination.databricks.errors import statement_of
from adapters.dlt_destination.databricks.retry import transient
from adapters.dlt_destination.failures import scrubbed
from adapters.dlt_destination.store import Refusal

_ERROR = re.compile(
    r"\[(?P<kind>[A-Z][A-Z0-9_]+)[A-Z0-9_.]*\].*SQLSTATE: (?P<state>\w{5})", re.DOTALL
)
#: Classes of SQLSTATE: feature not supported, data exception, integrity constraint violation,
#: syntax error or access rule violation, and Delta's own class.
_REFUSING = ("0A", "22", "23", "42", "KD")
#: Causes that can affect every table at the same time.
_COMMON = {
    "INSUFFICIENT_PERMISSIONS",
    "PERMISSION_DENIED",
    "PARSE_SYNTAX_ERROR",
    "TABLE_OR_VIEW_NOT_FOUND",
}
#: Causes outside the table: staged file, catalog, schema, or a statement in a transaction.
_OTHERS = re.compile(
    r"PATH_NOT_FOUND|FAILED_READ_FILE|NO_SUCH_CATALOG\w*|SCHEMA_NOT_FOUND|VOLUME_\w+|\w*TRANSACTION\w*"
)


def refusal_of(error: BaseException) -> Refusal | None:
    """Return why a table was refused; None for an error that does not concern a single table."""
    found = _ERROR.search(str(error))
    if found is None or transient(error) or _OTHERS.fullmatch(found["kind"]):
        return None
    if found["state"][:2] not in _REFUSING:
        return None
    why = scrubbed(error).removeprefix(f"{type(error).__name__}: ")
    return Refusal(why + statement_of(error), found["kind"] in _COMMON)
