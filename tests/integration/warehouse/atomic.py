"""`BEGIN ATOMIC … END`: statements over several tables that all count, or none.

The statements run while nothing else does, so no reader sees the middle; should one fail, the
versions that the block wrote are taken off the logs again.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import errors
from .catalog import Name
from .delta_log import latest_version, log_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .catalog import Catalog

_ALLOWED = re.compile(r"\s*(?:INSERT|MERGE|UPDATE|DELETE|SELECT|WITH)\b", re.IGNORECASE)


def split_block(text: str) -> list[str]:
    """The statements of a block. Only queries and changes of rows may be in it."""
    body = re.fullmatch(r"BEGIN\s+ATOMIC\b(.*)\bEND", text, re.IGNORECASE | re.DOTALL)
    if body is None:
        raise errors.syntax_error("BEGIN ATOMIC without END")
    pieces = re.findall(r"(?:[^;'`\"]|'(?:[^'\\]|\\.)*'|`[^`]*`|\"[^\"]*\")+", body[1])
    found = [piece.strip() for piece in pieces if piece.strip()]
    for statement in found:
        if not _ALLOWED.match(statement):
            raise errors.SqlError(
                "TRANSACTION_NOT_SUPPORTED.COMMAND",
                f"{statement.split()[0].upper()} is not supported inside a transaction.",
            )
    return found


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
            for newer in range(latest_version(path), version, -1):
                file = log_file(path, newer)
                file.unlink(missing_ok=True)
                file.with_suffix(".crc").unlink(missing_ok=True)
        raise
