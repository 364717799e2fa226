"""Rules for single tables: the entries of the settings, and what they make of one table."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cdc_core.values.masks import Hasher

History: TypeAlias = Literal["log", "scd2"]
Deletes: TypeAlias = Literal["hard", "soft"]
Mask: TypeAlias = Literal["hash", "null", "last4"]
ClusterBy: TypeAlias = tuple[str, ...] | Literal["auto"]


SETTING = "sources.pg_replication.tables"
MASK_KEY = "sources.pg_replication.mask_key"


@dataclass(frozen=True)
class Rule:
    """One entry of the settings. `match` are globs over `schema.table`. A key that is None says
    nothing. Column names in `exclude_columns`, `include_columns` and `mask` may be globs."""

    match: tuple[str, ...]
    history: tuple[History, ...] | None = None
    deletes: Deletes | None = None
    exclude_columns: tuple[str, ...] | None = None
    include_columns: tuple[str, ...] | None = None
    mask: Mapping[str, Mask] | None = None
    #: "canonical" is "variant" at a destination that keeps values but not their text.
    json: Literal["string", "variant", "canonical"] | None = None
    arrays: Literal["json", "array"] | None = None
    cluster_by: ClusterBy | None = None

    def settings(self) -> Iterator[tuple[str, Any]]:
        """Yield the keys that it sets, with their values."""
        for key in fields(self):
            if key.name != "match" and (value := getattr(self, key.name)) is not None:
                yield key.name, value


def rule_name(number: int, match: Sequence[str]) -> str:
    """How messages name a rule; `number` counts from 1."""
    return f"rule {number} of {SETTING} (match {', '.join(match)})"


class ColumnRule(Enum):
    """How the values of a column are read and stored."""

    KEEP = "keep"
    #: Neither read nor stored.
    EXCLUDE = "exclude"
    #: Not read; NULL in the column's type.
    NULL = "null"
    #: Read as text, stored as a keyed hash of it.
    HASH = "hash"
    #: Read as text, stored with all but the last four characters replaced.
    LAST4 = "last4"
    #: JSON in the destination's own type.
    VARIANT = "variant"
    #: As `VARIANT`, of values whose text the destination does not keep: it is made canonical.
    CANONICAL = "canonical"
    #: An array in the destination's own type.
    ARRAY = "array"

    @property
    def is_read(self) -> bool:
        return self not in (ColumnRule.EXCLUDE, ColumnRule.NULL)

    @property
    def reads_text(self) -> bool:
        """Whether values are read as PostgreSQL's own text, whatever their type."""
        return self in (ColumnRule.HASH, ColumnRule.LAST4)

    @property
    def shows_values(self) -> bool:
        """Whether values are stored as they are."""
        return self.is_read and not self.reads_text

    @property
    def is_variant(self) -> bool:
        return self in (ColumnRule.VARIANT, ColumnRule.CANONICAL)

    @property
    def shown(self) -> str:
        """How people see the rule: as the settings name it."""
        return ColumnRule.VARIANT.value if self.is_variant else self.value

    @property
    def is_stored(self) -> bool:
        return self is not ColumnRule.EXCLUDE


#: Rules of columns other than `KEEP`, by their names.
ColumnRules: TypeAlias = "Mapping[str, ColumnRule]"


@dataclass(frozen=True)
class TableRules:
    """The rules of one table. Those of its columns are in its relation (`Column.rule`).

    `cluster_by` names columns of the source; empty: the key. `key_mark` changes with the mask key,
    and is empty unless a column is hashed; the key cannot be found from it. Two values are equal if
    they make the same of the table.
    """

    history: tuple[History, ...] = ()
    deletes: Deletes = "hard"
    cluster_by: ClusterBy = ()
    key_mark: str = ""
    #: Hashes the columns with `ColumnRule.HASH`; None without such a column.
    hasher: Hasher | None = field(default=None, compare=False, repr=False)
    #: The rule for a column of this name, for columns that the source has dropped since.
    rule_for: Callable[[str], ColumnRule] = field(
        default=lambda _: ColumnRule.KEEP, compare=False, repr=False
    )

    def to_state(self) -> dict[str, Any]:
        """Plain JSON types, without the key."""
        return {
            "history": list(self.history),
            "deletes": self.deletes,
            "cluster_by": self.cluster_by if self.cluster_by == "auto" else list(self.cluster_by),
            "key_mark": self.key_mark,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TableRules:
        """Inverse of `to_state`; an empty mapping stands for no rules."""
        if not state:
            return NO_RULES
        cluster_by = state["cluster_by"]
        return cls(
            tuple(state["history"]),
            state["deletes"],
            cluster_by if cluster_by == "auto" else tuple(cluster_by),
            state["key_mark"],
        )


NO_RULES = TableRules()
