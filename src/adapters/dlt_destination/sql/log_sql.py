"""The SQL of a table's log: sources of images, and the rules to merge them.

`log` is the log, `table` the table itself; see `history_sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.dlt_destination.sql.merge_sql import (
    MergeRules,
    content_values,
    join,
    key_values,
    partition,
    same_content,
    same_key,
)
from cdc_core.values.history import (
    BASE_COLUMN,
    CHANGE_TYPE_COLUMN,
    DELETE_IMAGE,
    INSERT,
    LOG_FIELDS,
    POSTIMAGE,
    PREIMAGE,
    SORT_COLUMN,
    TRUNCATE_NUMBERS,
)
from cdc_core.values.merges import UNCHANGED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pyarrow as pa

    from adapters.dlt_destination.sql.dialect import Dialect
    from cdc_core.values.history import LogAppend, LogTruncate, Moment

LOG_COLUMNS = tuple(f.name for f in LOG_FIELDS)


def log_rules(dialect: Dialect, columns: Sequence[str], first: int) -> MergeRules:
    """Rules that insert the images, numbered from `first` on, that the log does not have."""
    names = (*columns, *LOG_COLUMNS)
    return MergeRules(
        on=f"t.{SORT_COLUMN} = s.{SORT_COLUMN} AND t.{SORT_COLUMN} >= {first}",
        insert={name: dialect.column("s", name) for name in names},
    )


def append_source(
    dialect: Dialect,
    append: LogAppend,
    staged: str,
    log: str,
    table: str | None,
    held: Collection[str],
) -> str:
    """Return the images of an append, whole. `table` has the columns `held`; None: it does not
    exist."""
    if not append.unchanged_columns:
        return f"SELECT * FROM {staged} AS f"
    schema, key = append.table.schema, append.key
    in_batch = append.batch_first < append.first
    columns = []
    for position, name in enumerate(schema.names):
        value = dialect.column("f", name)
        if name in append.unchanged_columns:
            found = f"CASE WHEN i.{SORT_COLUMN} IS NOT NULL THEN {dialect.column('i', name)}"
            if in_batch:
                found += f" WHEN p.{SORT_COLUMN} IS NOT NULL THEN {dialect.column('p', name)}"
            if table is not None and name in held:
                found += f" ELSE {dialect.column('t', name)}"
            marked = f"f.{UNCHANGED_COLUMN} LIKE '%.{position}.%'"
            value = f"CASE WHEN {marked} THEN {found} END ELSE {value} END"
        columns.append(f"{value} AS {dialect.quote(name)}")
    columns += [f"f.{name}" for name in LOG_COLUMNS]
    return join(
        f"SELECT {', '.join(columns)} FROM {staged} AS f",
        f"LEFT JOIN {staged} AS b ON b.{SORT_COLUMN} = f.{BASE_COLUMN}",
        f"LEFT JOIN {log} AS i ON i.{SORT_COLUMN} = f.{BASE_COLUMN}",
        f"AND i.{SORT_COLUMN} >= {append.first}",
        _last_of_batch(dialect, append, log) if in_batch else "",
        f"LEFT JOIN {table} AS t ON {same_key(dialect, schema, key, 't', 'b')}" if table else "",
    )


def _last_of_batch(dialect: Dialect, append: LogAppend, log: str) -> str:
    """Join the last image of each base's key that an earlier part of the batch has."""
    schema, key = append.table.schema, append.key
    window = partition(key_values(dialect, schema, key, "l"))
    last = join(
        f"SELECT l.*, ROW_NUMBER() OVER ({window}ORDER BY l.{SORT_COLUMN} DESC) AS _cdc_rank",
        f"FROM {log} AS l WHERE l.{SORT_COLUMN} >= {append.batch_first}",
        f"AND l.{SORT_COLUMN} < {append.first}",
    )
    same = same_key(dialect, schema, key, "p", "b")
    return f"LEFT JOIN ({last}) AS p ON {same} AND p._cdc_rank = 1"


def truncate_source(dialect: Dialect, truncate: LogTruncate, log: str) -> str:
    """Return a `delete` of each live image, unless these are written."""
    first, at = truncate.first, truncate.at
    schema = truncate.table.schema
    live = _live(dialect, schema, truncate.key, log, first)
    xid = "NULL" if truncate.xid is None else str(truncate.xid)
    written = (
        f"SELECT COUNT(*) FROM {log} AS w WHERE w.{SORT_COLUMN} >= {first} "
        f"AND w.{SORT_COLUMN} < {first + TRUNCATE_NUMBERS}"
    )
    columns = [dialect.column("v", name) for name in schema.names]
    columns += [
        f"'{DELETE_IMAGE}' AS {CHANGE_TYPE_COLUMN}",
        *_stamps(dialect, at, xid),
        f"{first - 1} + ROW_NUMBER() OVER (ORDER BY v.{SORT_COLUMN}) AS {SORT_COLUMN}",
    ]
    return f"SELECT {', '.join(columns)} FROM ({live}) AS v WHERE ({written}) = 0"


def log_difference_source(
    dialect: Dialect,
    schema: pa.Schema,
    key: Sequence[str],
    at: Moment,
    first: int,
    log: str,
    new: str,
    scope: str | None = None,
) -> str:
    """Return the images that lead from the live ones to the rows of `new`. `scope` has the keys
    that are compared; None: all."""
    live = _live(dialect, schema, key, log)
    if scope is not None:
        same = same_key(dialect, schema, key, "o", "e")
        live = f"SELECT o.* FROM ({live}) AS o SEMI JOIN {scope} AS e ON {same}"
    if not key:
        return _difference_of_counts(dialect, schema, at, first, live, new)
    places = list(enumerate(schema.names))
    # The same order each time: a statement can evaluate its source twice.
    order = [f"b.{SORT_COLUMN}", *(dialect.column("a", name) for name in key)]
    before = [f"{dialect.column('b', name)} AS _cdc_b{n}" for n, name in places]
    after = [f"{dialect.column('a', name)} AS _cdc_a{n}" for n, name in places]
    changed = join(
        f"SELECT {', '.join([*before, *after])},",
        "b._cdc_there AS _cdc_before, a._cdc_there AS _cdc_after,",
        f"ROW_NUMBER() OVER (ORDER BY {', '.join(order)}) AS _cdc_change",
        f"FROM (SELECT o.*, 1 AS _cdc_there FROM ({live}) AS o) AS b",
        f"FULL OUTER JOIN (SELECT n.*, 1 AS _cdc_there FROM {new} AS n) AS a",
        f"ON {same_key(dialect, schema, key, 'b', 'a')}",
        "WHERE b._cdc_there IS NULL OR a._cdc_there IS NULL",
        f"OR NOT ({same_content(dialect, schema, schema.names, 'b', 'a')})",
    )
    kind = join(
        f"CASE WHEN d._cdc_after IS NULL THEN '{DELETE_IMAGE}'",
        f"WHEN d._cdc_before IS NULL THEN '{INSERT}'",
        f"WHEN k._cdc_side = 0 THEN '{PREIMAGE}' ELSE '{POSTIMAGE}' END",
    )
    columns = [
        f"CASE WHEN k._cdc_side = 0 THEN d._cdc_b{n} ELSE d._cdc_a{n} END AS {dialect.quote(name)}"
        for n, name in places
    ]
    columns += [
        f"{kind} AS {CHANGE_TYPE_COLUMN}",
        *_stamps(dialect, at, "NULL"),
        f"{first - 2} + 2 * d._cdc_change + k._cdc_side AS {SORT_COLUMN}",
    ]
    return join(
        f"SELECT {', '.join(columns)} FROM ({changed}) AS d",
        "CROSS JOIN (SELECT 0 AS _cdc_side UNION ALL SELECT 1 AS _cdc_side) AS k",
        "WHERE (k._cdc_side = 0 AND d._cdc_before = 1) OR (k._cdc_side = 1 AND d._cdc_after = 1)",
    )


def _difference_of_counts(
    dialect: Dialect, schema: pa.Schema, at: Moment, first: int, live: str, new: str
) -> str:
    """Return deletes and inserts. The n-th copy of a content on one side goes with the n-th on the
    other."""
    names = [dialect.quote(name) for name in schema.names]
    listed = "".join(f"{name}, " for name in names)
    same = content_values(dialect, schema, schema.names)
    both = (
        f"SELECT {listed}0 AS _cdc_side FROM ({live}) AS o "
        f"UNION ALL SELECT {listed}1 AS _cdc_side FROM {new} AS n"
    )
    content = partition(same)
    counted = join(
        "SELECT u.*,",
        f"ROW_NUMBER() OVER ({partition([*same, '_cdc_side'])}ORDER BY _cdc_side) AS _cdc_copy,",
        f"SUM(1 - _cdc_side) OVER ({content}) AS _cdc_before,",
        f"SUM(_cdc_side) OVER ({content}) AS _cdc_after FROM ({both}) AS u",
    )
    kind = f"CASE WHEN c._cdc_side = 0 THEN '{DELETE_IMAGE}' ELSE '{INSERT}' END"
    contents = content_values(dialect, schema, schema.names, "c")
    order = ["c._cdc_side", *contents, "c._cdc_copy"]
    columns = [
        *(f"c.{name}" for name in names),
        f"{kind} AS {CHANGE_TYPE_COLUMN}",
        *_stamps(dialect, at, "NULL"),
        f"{first - 1} + ROW_NUMBER() OVER (ORDER BY {', '.join(order)}) AS {SORT_COLUMN}",
    ]
    return join(
        f"SELECT {', '.join(columns)} FROM ({counted}) AS c",
        "WHERE (c._cdc_side = 0 AND c._cdc_copy > c._cdc_after)",
        "OR (c._cdc_side = 1 AND c._cdc_copy > c._cdc_before)",
    )


def _live(
    dialect: Dialect, schema: pa.Schema, key: Sequence[str], log: str, below: int | None = None
) -> str:
    """Return the live images numbered below `below`: the table's columns and `_sort_by`."""
    names = ", ".join([*(dialect.column("r", name) for name in schema.names), f"r.{SORT_COLUMN}"])
    where = "" if below is None else f"WHERE l.{SORT_COLUMN} < {below}"
    adds = f"{CHANGE_TYPE_COLUMN} IN ('{INSERT}', '{POSTIMAGE}')"
    if key:
        window = partition(key_values(dialect, schema, key, "l"))
        rank = f"ROW_NUMBER() OVER ({window}ORDER BY l.{SORT_COLUMN} DESC) AS _cdc_rank"
        images = f"SELECT l.*, {rank} FROM {log} AS l {where}"
        return f"SELECT {names} FROM ({images}) AS r WHERE r._cdc_rank = 1 AND r.{adds}"
    same = content_values(dialect, schema, schema.names, "l")
    step = f"CASE WHEN l.{adds} THEN 1 ELSE -1 END"
    images = join(
        f"SELECT l.*, SUM({step}) OVER ({partition(same)}) AS _cdc_live,",
        f"ROW_NUMBER() OVER ({partition([*same, step])}ORDER BY l.{SORT_COLUMN}) AS _cdc_copy",
        f"FROM {log} AS l {where}",
    )
    return f"SELECT {names} FROM ({images}) AS r WHERE r.{adds} AND r._cdc_copy <= r._cdc_live"


def _stamps(dialect: Dialect, at: Moment, xid: str) -> list[str]:
    return [
        f"CAST({int(at.lsn)} AS BIGINT) AS _pg_lsn",
        f"CAST({xid} AS BIGINT) AS _pg_xid",
        f"{dialect.moment(at.committed_at)} AS _timestamp",
    ]
