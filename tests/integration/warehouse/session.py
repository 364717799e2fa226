"""What one connection carries: current catalog and schema, temporary views, bound parameters."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from . import errors
from .catalog import Name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlglot import exp


@dataclass
class Session:
    """State of a session. The schema need not exist: only statements that need it fail."""

    catalog: str
    schema: str
    user: str
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    views: dict[str, exp.Query] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def name(self, parts: Sequence[str]) -> Name:
        """One to three parts of a name, completed."""
        match [part.lower() for part in parts]:
            case [table]:
                return Name(self.catalog, self.schema, table)
            case [schema, table]:
                return Name(self.catalog, schema, table)
            case [catalog, schema, table]:
                return Name(catalog, schema, table)
            case _:
                raise errors.syntax_error(f"a name of {len(parts)} parts")

    def schema_name(self, parts: Sequence[str]) -> tuple[str, str]:
        match [part.lower() for part in parts]:
            case [schema]:
                return self.catalog, schema
            case [catalog, schema]:
                return catalog, schema
            case _:
                raise errors.syntax_error(f"a schema's name of {len(parts)} parts")


@dataclass(frozen=True)
class Result:
    """What a statement answers: rows, whether they direct a file transfer, and rows changed."""

    rows: pa.Table
    staging: bool = False
    modified: int | None = None


#: The answer to DDL.
DONE = Result(pa.table({}))
