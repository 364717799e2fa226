"""`BEGIN ATOMIC … END`: statements over several tables that all count, or none.

The statements run while nothing else does, so no reader sees the middle; should one fail, the
versions that the block wrote are taken off the logs again. What may be in a block, and what its
tables must have, is as documented: docs.databricks.com, "Transactions", "Catalog commits",
"TRANSACTION_NOT_SUPPORTED error condition".
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from . import errors
from .catalog import Name
from .delta_log import latest_version, undo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .catalog import Catalog

_ALLOWED = re.compile(r"\s*(?:INSERT|MERGE|UPDATE|DELETE|SELECT|WITH)\b", re.IGNORECASE)
#: What a table that a block writes must have.
FEATURE = "delta.feature.catalogManaged"
_OPTION = re.compile(r"\s+WITH\s*\(\s*allow_nontransactional_reads\s*=\s*true\s*\)", re.IGNORECASE)
_FILES = re.compile(
    r"\b(?P<kind>parquet|json|csv|text)\s*\.\s*(?P<name>`(?:[^`]|``)+`)(?P<option>\s+WITH\s*\()?",
    re.IGNORECASE,
)
_INFORMATION_SCHEMA = re.compile(r"\binformation_schema\s*\.", re.IGNORECASE)


def split_script(text: str) -> list[str]:
    """The statements of `BEGIN [ATOMIC] … END`, without declarations and control flow."""
    body = re.fullmatch(r"BEGIN(?:\s+ATOMIC)?\b(.*)\bEND", text, re.IGNORECASE | re.DOTALL)
    if body is None:
        raise errors.syntax_error("BEGIN without END")
    pieces = re.findall(r"(?:[^;'`\"]|'(?:[^'\\]|\\.)*'|`[^`]*`|\"[^\"]*\")+", body[1])
    return [piece.strip() for piece in pieces if piece.strip()]


def split_block(text: str) -> list[str]:
    """The statements of a transaction. Only queries and changes of rows may be in it."""
    found = split_script(text)
    for statement in found:
        if not _ALLOWED.match(statement):
            _refuse("COMMAND", f"{statement.split()[0].upper()} is not supported")
        if _INFORMATION_SCHEMA.search(statement):
            _refuse("INFORMATION_SCHEMA_TABLE", "Tables of INFORMATION_SCHEMA cannot be accessed")
        for source in _FILES.finditer(statement):
            if not source["option"]:
                _refuse(
                    "ILLEGAL_DATA_SOURCE_FOR_TRANSACTIONAL_READ",
                    f"A source of format {source['kind']} cannot be read without the option "
                    "allow_nontransactional_reads",
                )
    return found


def without_option(text: str) -> str:
    """A statement without the option that allows it to read files in a transaction."""
    return _OPTION.sub("", text)


def check_written(catalog: Catalog, path: Path) -> None:
    """Refuse to write a table without catalog commits in a transaction."""
    if catalog.info(path).hidden_properties.get(FEATURE) != "supported":
        _refuse(
            "WRITE_NON_CATALOG_OWNED_TABLE",
            "A table does not have the table feature catalogManaged, and cannot be written",
        )


def _refuse(reason: str, message: str) -> NoReturn:
    raise errors.SqlError(f"TRANSACTION_NOT_SUPPORTED.{reason}", f"{message} in a transaction.")


@contextmanager
def rollback_on_error(catalog: Catalog) -> Iterator[None]:
    before: dict[Path, int] = {}
    for of in catalog.catalogs():
        for schema in catalog.schemas(of):
            for table in catalog.tables(of, schema):
                path = catalog.table_path(Name(of, schema, table))
                before[path] = latest_version(path)
    try:
        yield
    except BaseException:
        for path, version in before.items():
            undo(path, version)
        raise
