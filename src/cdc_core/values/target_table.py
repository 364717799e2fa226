"""A table of the destination, and rows that wait there for a load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from cdc_core.values.table_rules import ClusterBy


@dataclass(frozen=True)
class TargetTable:
    """A destination table: its name there and its own columns, metadata columns left out.

    `variants` are text columns whose JSON is stored in the destination's own type. `cluster_by`
    names columns to lay out the table by, for a destination that can; empty: the key.
    """

    name: str
    schema: pa.Schema
    variants: frozenset[str] = frozenset()
    cluster_by: ClusterBy = ()


class StagedRows(Protocol):
    """Rows that wait at the destination, not in memory, until a load names them."""

    def __len__(self) -> int: ...

    def read(self) -> pa.Table:
        """The rows as they were staged."""
        ...
