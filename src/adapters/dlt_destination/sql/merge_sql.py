"""The SQL that writes a batch into a table: one MERGE per merge, the same in every dialect.

`staged` and `target` are relations that can follow FROM; columns are quoted here.
`cdc_core.values.merges` defines the control columns. Sources: DuckDB and Databricks SQL,
"MERGE INTO".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from cdc_core.values.history import Moment
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    DELETED_AT_COLUMN,
    HOP,
    LSN_COLUMN,
    METADATA_FIELDS,
    OP_COLUMN,
    REF_COLUMN,
    SOFT_DELETE,
    UNCHANGED_COLUMN,
    UPSERT,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from adapters.dlt_destination.sql.dialect import Dialect
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.merges import KeyedMerge, MultisetMerge, Replacement

METADATA = tuple(f.name for f in METADATA_FIELDS)

#: A row that a user wrote can lack an LSN; it then counts as older than any change.
_HELD_LSN = f"COALESCE(t.{LSN_COLUMN}, 0)"


@dataclass(frozen=True)
class MergeRules:
    """The parts of a MERGE: `t` is the target, `s` the source, expressions are by column.

    A part that does not occur is None. Stores without SQL build their merge from these parts.
    `mark` is a second update of matched rows. Target rows without a source row get `unmatched` if
    `unmatched_if`; they are deleted if `unmatched` is empty.
    """

    on: str
    insert: Mapping[str, str]
    delete_if: str | None = None
    update_if: str | None = None
    update: Mapping[str, str] = field(default_factory=dict)
    mark_if: str | None = None
    mark: Mapping[str, str] = field(default_factory=dict)
    insert_if: str | None = None
    unmatched_if: str | None = None
    unmatched: Mapping[str, str] = field(default_factory=dict)

    def statement(self, dialect: Dialect, source: str, target: str) -> str:
        parts = [f"MERGE INTO {target} AS t USING ({source}) AS s ON {self.on}"]
        if self.delete_if:
            parts.append(f"WHEN MATCHED AND {self.delete_if} THEN DELETE")
        for condition, values in ((self.update_if, self.update), (self.mark_if, self.mark)):
            if condition:
                parts.append(f"WHEN MATCHED AND {condition} THEN {_updating(dialect, values)}")
        columns = ", ".join(dialect.quote(name) for name in self.insert)
        condition = f" AND {self.insert_if}" if self.insert_if else ""
        inserted = ", ".join(self.insert.values())
        parts.append(f"WHEN NOT MATCHED{condition} THEN INSERT ({columns}) VALUES ({inserted})")
        if self.unmatched_if:
            what = _updating(dialect, self.unmatched) if self.unmatched else "DELETE"
            parts.append(f"WHEN NOT MATCHED BY SOURCE AND {self.unmatched_if} THEN {what}")
        return " ".join(parts)


def keyed_rules(dialect: Dialect, merge: KeyedMerge) -> MergeRules:
    """Rules for `keyed_source`: one final change per key, applied only to rows with an older
    LSN."""
    older = older_than(f"s.{LSN_COLUMN}")
    names = (*merge.target.schema.names, *METADATA)
    # A row whose unsent values are not held was deleted by a later change that was applied before.
    whole = f" AND s.{UNCHANGED_COLUMN} IS NULL" if merge.unchanged_columns else ""
    variants = merge.target.variants
    rules = MergeRules(
        on=same_key(dialect, merge.target.schema, merge.key, "t", "s"),
        delete_if=f"s.{OP_COLUMN} = '{DELETE}' AND {older}",
        update_if=f"{writes(merge)} AND {older}",
        update={name: _value(dialect, merge, name) for name in names},
        insert_if=f"{writes(merge)}{whole}",
        insert={name: new_value(dialect, name, variants) for name in names},
        unmatched_if=_before(merge.truncated_at),
    )
    return _with_marks(dialect, rules, merge) if merge.soft_deletes else rules


def writes(merge: KeyedMerge) -> str:
    """Return the condition that a source row has the values of a row of the target."""
    if not merge.soft_deletes:
        return f"s.{OP_COLUMN} = '{UPSERT}'"
    return f"s.{OP_COLUMN} IN ('{UPSERT}', '{SOFT_DELETE}')"


def _with_marks(dialect: Dialect, rules: MergeRules, merge: KeyedMerge) -> MergeRules:
    """Mark rows where `rules` delete them."""
    mark = f"CASE WHEN s.{OP_COLUMN} = '{SOFT_DELETE}' THEN s.{COMMITTED_AT_COLUMN} END"
    found = replace(
        rules,
        delete_if=None,
        mark_if=rules.delete_if,
        mark={
            LSN_COLUMN: f"s.{LSN_COLUMN}",
            COMMITTED_AT_COLUMN: f"s.{COMMITTED_AT_COLUMN}",
            DELETED_AT_COLUMN: f"s.{COMMITTED_AT_COLUMN}",
        },
        update={**rules.update, DELETED_AT_COLUMN: mark},
        insert={**rules.insert, DELETED_AT_COLUMN: mark},
    )
    if merge.truncated_at is None:
        return found
    assert merge.truncated_time is not None
    at = Moment(merge.truncated_at, merge.truncated_time)
    return replace(
        found,
        unmatched_if=f"{rules.unmatched_if} AND t.{DELETED_AT_COLUMN} IS NULL",
        unmatched=deleted_at(dialect, at),
    )


def kept_values(dialect: Dialect, step: Replacement, held: pa.Schema) -> dict[str, str]:
    """Return the values of a row `t` that a replacement with soft deletes keeps: it is marked,
    unless it was before. `held` are the columns of the table; one of another type is cast."""
    assert step.soft_deletes is not None
    values: dict[str, str] = {}
    for column in (*step.target.schema, *METADATA_FIELDS):
        place, kind = held.get_field_index(column.name), dialect.sql_type(column.type)
        lost = place < 0 or column.name in step.emptied
        value = "NULL" if lost else dialect.column("t", column.name)
        if lost or held.field(place).type != column.type:
            value = f"TRY_CAST({value} AS {kind})"
        values[column.name] = value
    marks = deleted_at(dialect, step.soft_deletes)
    if DELETED_AT_COLUMN not in held.names:
        return values | marks
    live = f"t.{DELETED_AT_COLUMN} IS NULL"
    return values | {
        name: f"CASE WHEN {live} THEN {value} ELSE t.{name} END" for name, value in marks.items()
    }


def kept_from(dialect: Dialect, step: Replacement, held: pa.Schema, table: str, rows: str) -> str:
    """Return the FROM clause of the rows `t` that a replacement with soft deletes keeps.

    Rows without a value for the key are not kept: the table had another one.
    """
    values, schema = kept_values(dialect, step, held), step.target.schema

    def comparable(name: str, value: str) -> str:
        if not _is_floating(schema, name):
            return value
        return f"CASE WHEN isnan({value}) THEN CAST('NaN' AS DOUBLE) ELSE {value} END"

    same = all_equal(
        [comparable(name, values[name]) for name in step.key],
        "=",
        [comparable(name, dialect.column("n", name)) for name in step.key],
    )
    there = " AND ".join(f"{values[name]} IS NOT NULL" for name in step.key)
    return f"FROM {table} AS t ANTI JOIN {rows} AS n ON {same} WHERE {there}"


def deleted_at(dialect: Dialect, at: Moment) -> dict[str, str]:
    """Return the values that mark a row as deleted at a moment."""
    time = dialect.moment(at.committed_at)
    return {LSN_COLUMN: f"{int(at.lsn)}", COMMITTED_AT_COLUMN: time, DELETED_AT_COLUMN: time}


def _updating(dialect: Dialect, values: Mapping[str, str]) -> str:
    assigned = ", ".join(f"{dialect.quote(name)} = {value}" for name, value in values.items())
    return f"UPDATE SET {assigned}"


def new_value(dialect: Dialect, name: str, variants: Collection[str]) -> str:
    """Return the value of a column in the source of a merge. Sources have JSON as text: it can be
    compared, and a VARIANT cannot."""
    value = dialect.column("s", name)
    return dialect.parse_json.format(value) if name in variants else value


def _value(dialect: Dialect, merge: KeyedMerge, name: str) -> str:
    """Return the new value of a column in a matched row."""
    value = new_value(dialect, name, merge.target.variants)
    if name not in merge.unchanged_columns:
        return value
    position = merge.target.schema.get_field_index(name)
    kept = dialect.column("t", name)
    return f"CASE WHEN s.{UNCHANGED_COLUMN} LIKE '%.{position}.%' THEN {kept} ELSE {value} END"


def keyed_source(dialect: Dialect, merge: KeyedMerge, staged: str, target: str) -> str:
    """Return the rows of a keyed merge. With hops, unchanged values are looked up under earlier
    keys."""
    if not merge.has_hops:
        return f"SELECT * FROM {staged} AS f"
    has_hop = "(h._cdc_hop_of IS NOT NULL)"
    looked_up = [dialect.quote(name) for name in merge.unchanged_columns]
    columns = []
    for position, name in enumerate(merge.target.schema.names):
        column = dialect.column("f", name)
        if name in merge.unchanged_columns:
            found = dialect.column("h", name)
            marked = f"{has_hop} AND f.{UNCHANGED_COLUMN} LIKE '%.{position}.%'"
            column = f"CASE WHEN {marked} THEN {found} ELSE {column} END AS {dialect.quote(name)}"
        columns.append(column)
    columns += [f"f.{name}" for name in (*METADATA, OP_COLUMN)]
    # A row whose hop was found has all its values now.
    columns.append(f"CASE WHEN NOT {has_hop} THEN f.{UNCHANGED_COLUMN} END AS {UNCHANGED_COLUMN}")
    held = f"{_HELD_LSN} >= h.{LSN_COLUMN}"
    latest = join(
        f"SELECT h.{REF_COLUMN} AS _cdc_hop_of, {', '.join(f't.{name}' for name in looked_up)},",
        f"ROW_NUMBER() OVER (PARTITION BY h.{REF_COLUMN} ORDER BY h.{LSN_COLUMN} DESC)",
        "AS _cdc_hop_rank",
        f"FROM {staged} AS h JOIN {target} AS t",
        f"ON {same_key(dialect, merge.target.schema, merge.key, 't', 'h')} AND {held}",
        f"WHERE h.{OP_COLUMN} = '{HOP}'",
    )
    return join(
        f"SELECT {', '.join(columns)} FROM {staged} AS f",
        f"LEFT JOIN ({latest}) AS h ON h._cdc_hop_of = f.{REF_COLUMN} AND h._cdc_hop_rank = 1",
        f"WHERE f.{OP_COLUMN} <> '{HOP}'",
    )


def multiset_rules(dialect: Dialect, merge: MultisetMerge) -> MergeRules:
    """Rules for `multiset_source`: delete every content that changed, insert it as often as it
    occurs."""
    own = merge.target.schema.names
    schema, variants = merge.target.schema, merge.target.variants
    held = [
        dialect.json_text.format(value) if name in variants else value
        for name, value in zip(
            merge.content, content_values(dialect, schema, merge.content, "t"), strict=True
        )
    ]
    new = content_values(dialect, schema, merge.content, "s")
    same = all_equal(held, dialect.null_safe_equal, new)
    return MergeRules(
        on=f"s.{OP_COLUMN} = '{DELETE}' AND {same}",
        delete_if=f"s.{OP_COLUMN} = '{DELETE}'",
        insert_if=f"s.{OP_COLUMN} = '{UPSERT}'",
        insert={name: new_value(dialect, name, variants) for name in (*own, *METADATA)},
        unmatched_if=_before(merge.truncated_at),
    )


def multiset_source(dialect: Dialect, merge: MultisetMerge, staged: str, target: str) -> str:
    """Return one "D" row for each content to delete, and a "U" row for each copy to insert.

    Copies in the target count as inserts before the first event. The new count is the result of
    applying the events one by one, never below zero. That equals the greatest sum over any number
    of last events, so events are summed from the last one back, and the greatest sum is the count.
    Copies in the target are inserted again first, with the columns that only they have.
    """
    own = [dialect.quote(name) for name in merge.target.schema.names]
    names = "".join(f"{name}, " for name in own)
    schema = merge.target.schema
    content = partition(content_values(dialect, schema, merge.content))
    same = same_content(dialect, schema, merge.content, "_cdc_e", "_cdc_t")
    surviving = (
        f"WHERE _cdc_t.{LSN_COLUMN} >= {int(merge.truncated_at)}"
        if merge.truncated_at is not None
        else ""
    )
    copies = "".join(f"{dialect.column('_cdc_t', n)}, " for n in merge.target.schema.names)
    rows = join(
        f"SELECT {names}{LSN_COLUMN}, {COMMITTED_AT_COLUMN}, {OP_COLUMN}, {REF_COLUMN}",
        f"FROM {staged} AS f",
        f"UNION ALL SELECT {copies}_cdc_t.{LSN_COLUMN}, _cdc_t.{COMMITTED_AT_COLUMN}, 'C', -1",
        # Not EXISTS: for that, DuckDB groups the target's rows and merges 0.0 with -0.0.
        f"FROM {target} AS _cdc_t SEMI JOIN {staged} AS _cdc_e ON {same} {surviving}",
    )
    marked = join(
        "SELECT r.*,",
        f"COALESCE(MAX(CASE WHEN {OP_COLUMN} = 'C' THEN {LSN_COLUMN} END) OVER ({content}), 0)",
        f"AS _cdc_applied_lsn FROM ({rows}) AS r",
    )
    # Drops events that the target already has, and contents without any other event.
    due = join(
        f"SELECT m.*, MAX(CASE WHEN {OP_COLUMN} <> 'C' THEN 1 ELSE 0 END) OVER ({content})",
        f"AS _cdc_has_events FROM ({marked}) AS m",
        f"WHERE {OP_COLUMN} = 'C' OR {LSN_COLUMN} > _cdc_applied_lsn",
    )
    step = f"CASE WHEN {OP_COLUMN} = '{DELETE}' THEN -1 ELSE 1 END"
    summed = join(
        "SELECT d.*,",
        f"SUM({step}) OVER ({content}ORDER BY {REF_COLUMN} DESC",
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS _cdc_last_steps,",
        f"FIRST_VALUE({LSN_COLUMN}) OVER ({content}ORDER BY {REF_COLUMN} DESC) AS _cdc_last_lsn,",
        f"FIRST_VALUE({COMMITTED_AT_COLUMN}) OVER ({content}ORDER BY {REF_COLUMN} DESC)",
        "AS _cdc_last_committed_at,",
        f"ROW_NUMBER() OVER ({content}ORDER BY",
        f"CASE WHEN {OP_COLUMN} = '{DELETE}' THEN 1 ELSE 0 END, {REF_COLUMN}) AS _cdc_copy_number",
        f"FROM ({due}) AS d WHERE _cdc_has_events = 1",
    )
    counted = join(
        f"SELECT c.*, MAX(_cdc_last_steps) OVER ({content}) AS _cdc_new_count FROM ({summed}) AS c"
    )
    # One pass over `counted`: row number 1 also yields the delete, if copies exist.
    return join(
        f"SELECT {names}_cdc_last_lsn AS {LSN_COLUMN},",
        f"_cdc_last_committed_at AS {COMMITTED_AT_COLUMN},",
        f"CASE WHEN k._cdc_removal = 1 THEN '{DELETE}' ELSE '{UPSERT}' END AS {OP_COLUMN}",
        f"FROM ({counted}) AS n",
        "CROSS JOIN (SELECT 0 AS _cdc_removal UNION ALL SELECT 1 AS _cdc_removal) AS k",
        f"WHERE (k._cdc_removal = 1 AND n.{OP_COLUMN} = 'C' AND n._cdc_copy_number = 1)",
        f"OR (k._cdc_removal = 0 AND n.{OP_COLUMN} <> '{DELETE}'",
        "AND n._cdc_copy_number <= n._cdc_new_count)",
    )


def older_than(lsn: str) -> str:
    """Return the condition that a target row is older than the expression `lsn`."""
    return f"{_HELD_LSN} < {lsn}"


def _before(truncated_at: Lsn | None) -> str | None:
    return None if truncated_at is None else older_than(str(int(truncated_at)))


def same_key(dialect: Dialect, schema: pa.Schema, key: Sequence[str], left: str, right: str) -> str:
    """Compare like a unique index: 0.0 equals -0.0, and NaN equals NaN. DataFusion does not."""

    def value(alias: str, name: str) -> str:
        column = dialect.column(alias, name)
        if not _is_floating(schema, name):
            return column
        return f"CASE WHEN isnan({column}) THEN CAST('NaN' AS DOUBLE) ELSE {column} END"

    return all_equal([value(left, n) for n in key], "=", [value(right, n) for n in key])


def key_values(dialect: Dialect, schema: pa.Schema, key: Sequence[str], alias: str) -> list[str]:
    """Return expressions that are equal exactly for equal keys, to partition by."""

    def value(name: str) -> str:
        column = dialect.column(alias, name)
        if not _is_floating(schema, name):
            return column
        double = "AS DOUBLE"
        return (
            f"CASE WHEN isnan({column}) THEN CAST('NaN' {double}) "
            f"WHEN {column} = 0 THEN CAST(0 {double}) ELSE CAST({column} {double}) END"
        )

    return [value(name) for name in key]


def same_content(
    dialect: Dialect, schema: pa.Schema, names: Sequence[str], left: str, right: str
) -> str:
    """Compare all these columns; see `content_values`."""
    return all_equal(
        content_values(dialect, schema, names, left),
        dialect.null_safe_equal,
        content_values(dialect, schema, names, right),
    )


def content_values(
    dialect: Dialect, schema: pa.Schema, names: Sequence[str], alias: str = ""
) -> list[str]:
    """Return the expressions that identify a row's content. Floats are compared as text, because
    -0.0 and 0.0 are different values.

    The cast to DOUBLE comes first: a real in a DOUBLE column is the same number with another text.
    """
    text = dialect.sql_type(pa.string())
    values = []
    for name in names:
        value = dialect.column(alias, name) if alias else dialect.quote(name)
        if _is_floating(schema, name):
            value = (
                f"CASE WHEN isnan({value}) THEN 'NaN' "
                f"ELSE CAST(CAST({value} AS DOUBLE) AS {text}) END"
            )
        values.append(value)
    return values


def partition(values: Sequence[str]) -> str:
    """Return the beginning of a window over rows with equal values."""
    return f"PARTITION BY {', '.join(values)} " if values else ""


def _is_floating(schema: pa.Schema, name: str) -> bool:
    return bool(pa.types.is_floating(schema.field(name).type))


def all_equal(left: Sequence[str], operator: str, right: Sequence[str]) -> str:
    terms = [f"({one} {operator} {other})" for one, other in zip(left, right, strict=True)]
    return " AND ".join(terms) or "1 = 1"


def join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
