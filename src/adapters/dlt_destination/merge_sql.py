"""The statements that bring a batch into a table: one for each merge, the same for every dialect.

`staged` and `target` are relations ready to stand after FROM; columns are quoted here. The meaning
of the control columns is `cdc_core.staging`'s. Sources: DuckDB and Databricks SQL, "MERGE INTO".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_core.staging import (
    COMMITTED_AT_COLUMN,
    DELETE,
    HOP,
    LSN_COLUMN,
    METADATA_FIELDS,
    OP_COLUMN,
    REF_COLUMN,
    UNCHANGED_COLUMN,
    UNREPRESENTABLE_SCHEMA,
    UPSERT,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adapters.dlt_destination.dialect import Dialect
    from cdc_core.lsn import Lsn
    from cdc_core.staging import KeyedMerge, MultisetMerge

METADATA = tuple(field.name for field in METADATA_FIELDS)


def keyed_merge(dialect: Dialect, merge: KeyedMerge, staged: str, target: str) -> str:
    """MERGE of at most one final change per key, guarded by each row's LSN."""
    older = f"t.{LSN_COLUMN} < s.{LSN_COLUMN}"
    own = merge.target.schema.names
    assignments = [
        f"{dialect.quote(name)} = {_value(dialect, merge, name)}" for name in (*own, *METADATA)
    ]
    columns = ", ".join(dialect.quote(name) for name in (*own, *METADATA))
    values = ", ".join(dialect.column("s", name) for name in (*own, *METADATA))
    return _join(
        f"MERGE INTO {target} AS t USING ({keyed_source(dialect, merge, staged, target)}) AS s",
        f"ON {_all_equal(dialect, merge.key, 't', 's', '=')}",
        f"WHEN MATCHED AND s.{OP_COLUMN} = '{DELETE}' AND {older} THEN DELETE",
        f"WHEN MATCHED AND s.{OP_COLUMN} = '{UPSERT}' AND {older}",
        f"THEN UPDATE SET {', '.join(assignments)}",
        f"WHEN NOT MATCHED AND s.{OP_COLUMN} = '{UPSERT}'",
        f"THEN INSERT ({columns}) VALUES ({values})",
        _truncation(merge.truncated_at),
    )


def _value(dialect: Dialect, merge: KeyedMerge, name: str) -> str:
    """What a matched row's column becomes."""
    value = dialect.column("s", name)
    if name not in merge.unchanged_columns:
        return value
    position = merge.target.schema.get_field_index(name)
    kept = dialect.column("t", name)
    return f"CASE WHEN s.{UNCHANGED_COLUMN} LIKE '%.{position}.%' THEN {kept} ELSE {value} END"


def keyed_source(dialect: Dialect, merge: KeyedMerge, staged: str, target: str) -> str:
    """The rows of a keyed merge; where there are hops, with the values found under earlier keys."""
    if not merge.has_hops:
        return f"SELECT * FROM {staged} AS f"
    looked_up = [dialect.quote(name) for name in merge.unchanged_columns]
    columns = []
    for position, name in enumerate(merge.target.schema.names):
        column = dialect.column("f", name)
        if name in merge.unchanged_columns:
            found = dialect.column("h", name)
            marked = f"f.{REF_COLUMN} IS NOT NULL AND f.{UNCHANGED_COLUMN} LIKE '%.{position}.%'"
            column = f"CASE WHEN {marked} THEN {found} ELSE {column} END AS {dialect.quote(name)}"
        columns.append(column)
    columns += [f"f.{name}" for name in (*METADATA, OP_COLUMN)]
    # A row with hops has its values now, its own key's among them.
    columns.append(
        f"CASE WHEN f.{REF_COLUMN} IS NULL THEN f.{UNCHANGED_COLUMN} END AS {UNCHANGED_COLUMN}"
    )
    held = f"t.{LSN_COLUMN} >= h.{LSN_COLUMN}"
    if merge.truncated_at is not None:
        held += f" AND t.{LSN_COLUMN} >= {int(merge.truncated_at)}"
    latest = _join(
        f"SELECT h.{REF_COLUMN} AS hop_of, {', '.join(f't.{name}' for name in looked_up)},",
        f"ROW_NUMBER() OVER (PARTITION BY h.{REF_COLUMN} ORDER BY h.{LSN_COLUMN} DESC) AS hop_rank",
        f"FROM {staged} AS h JOIN {target} AS t",
        f"ON {_all_equal(dialect, merge.key, 't', 'h', '=')} AND {held}",
        f"WHERE h.{OP_COLUMN} = '{HOP}'",
    )
    return _join(
        f"SELECT {', '.join(columns)} FROM {staged} AS f",
        f"LEFT JOIN ({latest}) AS h ON h.hop_of = f.{REF_COLUMN} AND h.hop_rank = 1",
        f"WHERE f.{OP_COLUMN} <> '{HOP}'",
    )


def multiset_merge(dialect: Dialect, merge: MultisetMerge, staged: str, target: str) -> str:
    """MERGE of a table without key: every content touched is taken out and put back as often as due."""
    own = merge.target.schema.names
    columns = ", ".join(dialect.quote(name) for name in (*own, *METADATA))
    values = ", ".join(dialect.column("s", name) for name in (*own, *METADATA))
    same_content = _all_equal(dialect, own, "t", "s", dialect.null_safe_equal)
    return _join(
        f"MERGE INTO {target} AS t USING ({multiset_source(dialect, merge, staged, target)}) AS s",
        f"ON s.{OP_COLUMN} = '{DELETE}' AND {same_content}",
        f"WHEN MATCHED AND s.{OP_COLUMN} = '{DELETE}' THEN DELETE",
        f"WHEN NOT MATCHED AND s.{OP_COLUMN} = '{UPSERT}'",
        f"THEN INSERT ({columns}) VALUES ({values})",
        _truncation(merge.truncated_at),
    )


def multiset_source(dialect: Dialect, merge: MultisetMerge, staged: str, target: str) -> str:
    """One "D" row for each content to take out, and a "U" row for each copy to put back.

    Copies in the target count as inserts before the first event. Walking events one by one and never
    below zero ends at the greatest sum of any number of last steps: the steps of a content are
    summed from the last one back, and the greatest such sum is the new count (none: zero).
    """
    own = [dialect.quote(name) for name in merge.target.schema.names]
    names = "".join(f"{name}, " for name in own)
    content = f"PARTITION BY {', '.join(own)} " if own else ""
    same = _all_equal(dialect, merge.target.schema.names, "e", "t", dialect.null_safe_equal)
    surviving = (
        f" AND t.{LSN_COLUMN} >= {int(merge.truncated_at)}"
        if merge.truncated_at is not None
        else ""
    )
    copies = "".join(f"{dialect.column('t', n)}, " for n in merge.target.schema.names)
    rows = _join(
        f"SELECT {names}{LSN_COLUMN}, {COMMITTED_AT_COLUMN}, {OP_COLUMN}, {REF_COLUMN}",
        f"FROM {staged} AS f",
        f"UNION ALL SELECT {copies}t.{LSN_COLUMN}, t.{COMMITTED_AT_COLUMN}, 'C', -1",
        f"FROM {target} AS t WHERE EXISTS (SELECT 1 FROM {staged} AS e WHERE {same}){surviving}",
    )
    marked = _join(
        "SELECT r.*,",
        f"COALESCE(MAX(CASE WHEN {OP_COLUMN} = 'C' THEN {LSN_COLUMN} END) OVER ({content}), 0)",
        f"AS applied_lsn FROM ({rows}) AS r",
    )
    # Events that the target has already, and contents without any other event, fall away here.
    due = _join(
        f"SELECT m.*, MAX(CASE WHEN {OP_COLUMN} <> 'C' THEN 1 ELSE 0 END) OVER ({content})",
        f"AS has_events FROM ({marked}) AS m",
        f"WHERE {OP_COLUMN} = 'C' OR {LSN_COLUMN} > applied_lsn",
    )
    step = f"CASE WHEN {OP_COLUMN} = '{DELETE}' THEN -1 ELSE 1 END"
    summed = _join(
        "SELECT d.*,",
        f"SUM({step}) OVER ({content}ORDER BY {REF_COLUMN} DESC",
        "ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS last_steps,",
        f"FIRST_VALUE({LSN_COLUMN}) OVER ({content}ORDER BY {REF_COLUMN} DESC) AS last_lsn,",
        f"FIRST_VALUE({COMMITTED_AT_COLUMN}) OVER ({content}ORDER BY {REF_COLUMN} DESC)",
        "AS last_committed_at,",
        f"ROW_NUMBER() OVER ({content}ORDER BY",
        f"CASE WHEN {OP_COLUMN} = '{DELETE}' THEN 1 ELSE 0 END, {REF_COLUMN}) AS copy_number",
        f"FROM ({due}) AS d WHERE has_events = 1",
    )
    counted = _join(
        f"SELECT c.*, MAX(last_steps) OVER ({content}) AS new_count FROM ({summed}) AS c"
    )
    # One pass over `counted`: its row number 1 also stands for the removal, where copies exist.
    return _join(
        f"SELECT {names}last_lsn AS {LSN_COLUMN}, last_committed_at AS {COMMITTED_AT_COLUMN},",
        f"CASE WHEN k.removal = 1 THEN '{DELETE}' ELSE '{UPSERT}' END AS {OP_COLUMN}",
        f"FROM ({counted}) AS n",
        "CROSS JOIN (SELECT 0 AS removal UNION ALL SELECT 1 AS removal) AS k",
        f"WHERE (k.removal = 1 AND n.{OP_COLUMN} = 'C' AND n.copy_number = 1)",
        f"OR (k.removal = 0 AND n.{OP_COLUMN} <> '{DELETE}' AND n.copy_number <= n.new_count)",
    )


def unrepresentable_merge(dialect: Dialect, staged: str, target: str) -> str:
    """Adds the cells that are not there yet; the table only ever grows."""
    identity = ("table_name", "column_name", "key", "value_text", LSN_COLUMN)
    names = UNREPRESENTABLE_SCHEMA.names
    columns = ", ".join(dialect.quote(name) for name in names)
    once = ", ".join(dialect.quote(name) for name in identity)
    committed = dialect.quote(COMMITTED_AT_COLUMN)
    return _join(
        f"MERGE INTO {target} AS t USING (SELECT {once}, MAX({committed}) AS {committed}",
        f"FROM {staged} AS f GROUP BY {once}) AS s",
        f"ON {_all_equal(dialect, identity, 't', 's', '=')}",
        f"WHEN NOT MATCHED THEN INSERT ({columns})",
        f"VALUES ({', '.join(dialect.column('s', name) for name in names)})",
    )


def _truncation(truncated_at: Lsn | None) -> str:
    if truncated_at is None:
        return ""
    return f"WHEN NOT MATCHED BY SOURCE AND t.{LSN_COLUMN} < {int(truncated_at)} THEN DELETE"


def _all_equal(dialect: Dialect, names: Iterable[str], left: str, right: str, operator: str) -> str:
    terms = [
        f"{dialect.column(left, name)} {operator} {dialect.column(right, name)}" for name in names
    ]
    return " AND ".join(terms) or "1 = 1"


def _join(*parts: Sequence[str] | str) -> str:
    return " ".join(str(part) for part in parts if part)
