"""The SQL that writes history tables: the source of each merge, and its rules.

As in `merge_sql`, relations can follow FROM. `cdc_core.values.history` defines what each statement
does; all are idempotent. `log` and `versions` are the history tables, `table` is the table itself.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    BASE,
    BASE_COLUMN,
    CHANGE_TYPE_COLUMN,
    DELETE_IMAGE,
    END_COLUMN,
    END_LSN_COLUMN,
    INSERT,
    LOG_FIELDS,
    POSTIMAGE,
    PREIMAGE,
    SORT_COLUMN,
    START_COLUMN,
    START_LSN_COLUMN,
    TRUNCATE_NUMBERS,
    VERSION_FIELDS,
    LogAppend,
    LogTruncate,
    VersionMerge,
)
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    LSN_COLUMN,
    OP_COLUMN,
    REF_COLUMN,
    UNCHANGED_COLUMN,
    UPSERT,
    KeyedMerge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import pyarrow as pa

    from adapters.dlt_destination.sql.dialect import Dialect
    from cdc_core.values.history import HistoryStep, Moment
    from cdc_core.values.merges import Replacement

LOG_COLUMNS = tuple(f.name for f in LOG_FIELDS)
VERSION_COLUMNS = tuple(f.name for f in VERSION_FIELDS)

#: Operations of a source for versions: a new version, and the end of one that exists.
NEW, END = "U", "C"


@dataclass(frozen=True)
class HistoryMerge:
    """A merge of `source` into the history table `name`, by `rules`."""

    name: str
    rules: MergeRules
    source: str


def step_merge(
    dialect: Dialect,
    step: HistoryStep,
    staged: str,
    relation: Callable[[str], str],
    held: Collection[str],
) -> HistoryMerge:
    """Return the merge of a step. `relation` gives the relation of a table by its name. `held` are
    the columns of the step's table; it does not exist if there are none."""
    schema = step.table.schema
    target = relation(step.name)
    match step:
        case LogAppend():
            rules = log_rules(dialect, schema.names, step.first)
            table = relation(step.table.name) if held else None
            source = append_source(dialect, step, staged, target, table, held)
        case LogTruncate():
            rules = log_rules(dialect, schema.names, step.first)
            source = truncate_source(dialect, step, target)
        case VersionMerge():
            rules = version_rules(dialect, schema, step.key, step.truncated)
            source = version_source(dialect, step, staged, target)
    return HistoryMerge(step.name, rules, source)


def difference_merges(
    dialect: Dialect,
    step: Replacement | KeyedMerge,
    rows: str,
    relation: Callable[[str], str],
) -> list[HistoryMerge]:
    """Return the merges that bring the history of a table to the rows that were read.

    `rows` is the relation of the replacement's rows, or of the merge's staged rows.
    """
    difference, schema, key = step.history, step.target.schema, step.key
    if difference is None:
        return []
    new, scope = rows, None
    if isinstance(step, KeyedMerge):
        new = f"(SELECT w.* FROM {rows} AS w WHERE w.{OP_COLUMN} = '{UPSERT}')"
        scope = rows
    at, first = difference.at, difference.first
    merges = []
    if difference.log is not None:
        log = relation(difference.log)
        source = log_difference_source(dialect, schema, key, at, first, log, new, scope)
        rules = log_rules(dialect, schema.names, first)
        merges.append(HistoryMerge(difference.log, rules, source))
    if difference.versions is not None:
        versions = relation(difference.versions)
        source = version_difference_source(dialect, schema, key, at, versions, new, scope)
        rules = version_rules(dialect, schema, key)
        merges.append(HistoryMerge(difference.versions, rules, source))
    return merges


# The log.


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


# Versions.


def version_rules(
    dialect: Dialect, schema: pa.Schema, key: Sequence[str], truncated: Moment | None = None
) -> MergeRules:
    """Rules for `version_source` and `version_difference_source`: insert new versions, and end
    those that are current."""
    names = (*schema.names, *VERSION_COLUMNS)
    current, ends = f"t.{END_LSN_COLUMN} IS NULL", f"s.{END_LSN_COLUMN} IS NOT NULL"
    ended = {name: f"s.{name}" for name in (END_COLUMN, END_LSN_COLUMN)}
    unmatched: Mapping[str, str] = {}
    older = None
    if truncated is not None:
        older = f"t.{START_LSN_COLUMN} < {int(truncated.lsn)}"
        unmatched = {
            END_COLUMN: dialect.moment(truncated.committed_at),
            END_LSN_COLUMN: str(int(truncated.lsn)),
        }
        ends = f"({ends} OR {older})"
        ended = {
            name: f"CASE WHEN {older} THEN {unmatched[name]} ELSE {value} END"
            for name, value in ended.items()
        }
    same_version = f"t.{START_LSN_COLUMN} = s.{START_LSN_COLUMN}"
    return MergeRules(
        on=f"{same_key(dialect, schema, key, 't', 's')} AND {same_version}",
        update_if=f"{current} AND {ends}",
        update=ended,
        insert={name: dialect.column("s", name) for name in names},
        insert_if=f"s.{OP_COLUMN} = '{NEW}'",
        unmatched_if=older and f"{current} AND {older}",
        unmatched=unmatched,
    )


def version_source(dialect: Dialect, merge: VersionMerge, staged: str, versions: str) -> str:
    """Return the new versions of each key, and the version before them if it is current."""
    schema = merge.table.schema
    states = _states(dialect, merge, staged, versions)
    own = [dialect.column("o", name) for name in schema.names]
    begun = join(
        f"SELECT {', '.join(own)}, o.{COMMITTED_AT_COLUMN} AS {START_COLUMN},",
        f"o._cdc_next_at AS {END_COLUMN}, o.{LSN_COLUMN} AS {START_LSN_COLUMN},",
        f"o._cdc_next_lsn AS {END_LSN_COLUMN}, '{NEW}' AS {OP_COLUMN}",
        f"FROM ({states}) AS o WHERE o.{OP_COLUMN} = '{UPSERT}'",
    )
    held = [dialect.column("v", name) for name in schema.names]
    ended = join(
        f"SELECT {', '.join(held)}, v.{START_COLUMN}, o.{COMMITTED_AT_COLUMN} AS {END_COLUMN},",
        f"v.{START_LSN_COLUMN}, o.{LSN_COLUMN} AS {END_LSN_COLUMN}, '{END}' AS {OP_COLUMN}",
        f"FROM {versions} AS v JOIN ({states}) AS o",
        f"ON {same_key(dialect, schema, merge.key, 'v', 'o')} AND o._cdc_state = 1",
        f"WHERE v.{END_LSN_COLUMN} IS NULL AND v.{START_LSN_COLUMN} < o.{LSN_COLUMN}",
    )
    return f"{begun} UNION ALL {ended}"


def _states(dialect: Dialect, merge: VersionMerge, staged: str, versions: str) -> str:
    """Return the states of each key, whole and numbered, each with its successor's LSN and time."""
    schema = merge.table.schema
    window = partition(key_values(dialect, schema, merge.key, "f"))
    order = f"({window}ORDER BY f.{LSN_COLUMN})"
    columns = []
    for position, name in enumerate(schema.names):
        value = dialect.column("f", name)
        if name in merge.unchanged_columns:
            marked = f"f.{UNCHANGED_COLUMN} LIKE '%.{position}.%'"
            value = f"CASE WHEN {marked} THEN {dialect.column('h', name)} ELSE {value} END"
        columns.append(f"{value} AS {dialect.quote(name)}")
    columns += [f"f.{name}" for name in (LSN_COLUMN, COMMITTED_AT_COLUMN, OP_COLUMN)]
    columns += [
        f"LEAD(f.{LSN_COLUMN}) OVER {order} AS _cdc_next_lsn",
        f"LEAD(f.{COMMITTED_AT_COLUMN}) OVER {order} AS _cdc_next_at",
        f"ROW_NUMBER() OVER {order} AS _cdc_state",
    ]
    return join(
        f"SELECT {', '.join(columns)} FROM {staged} AS f",
        _bases(dialect, merge, staged, versions) if merge.unchanged_columns else "",
        f"WHERE f.{OP_COLUMN} IN ('{UPSERT}', '{DELETE}')",
    )


def _bases(dialect: Dialect, merge: VersionMerge, staged: str, versions: str) -> str:
    """Join the version that has the values which the source did not send."""
    looked_up = "".join(f"{dialect.column('v', name)}, " for name in merge.unchanged_columns)
    same = same_key(dialect, merge.table.schema, merge.key, "v", "g")
    found = join(
        f"SELECT {looked_up}g.{REF_COLUMN} AS _cdc_base_of,",
        f"ROW_NUMBER() OVER (PARTITION BY g.{REF_COLUMN} ORDER BY v.{START_LSN_COLUMN} DESC)",
        f"AS _cdc_rank FROM {staged} AS g JOIN {versions} AS v",
        f"ON {same} AND v.{START_LSN_COLUMN} < g.{LSN_COLUMN} WHERE g.{OP_COLUMN} = '{BASE}'",
    )
    return (
        f"LEFT JOIN ({found}) AS h ON h._cdc_base_of = f.{REF_COLUMN} AND h._cdc_rank = 1 "
        f"AND f.{OP_COLUMN} = '{UPSERT}'"
    )


def version_difference_source(
    dialect: Dialect,
    schema: pa.Schema,
    key: Sequence[str],
    at: Moment,
    versions: str,
    new: str,
    scope: str | None = None,
) -> str:
    """Return a version for each row of `new` that no current version has, and the current versions
    that no row of `new` has."""
    time, lsn = dialect.moment(at.committed_at), f"CAST({int(at.lsn)} AS BIGINT)"
    own = [dialect.column("a", name) for name in schema.names]
    current = f"(SELECT c.* FROM {versions} AS c WHERE c.{END_LSN_COLUMN} IS NULL)"
    same = join(
        f"{same_key(dialect, schema, key, 'v', 'a')} AND",
        same_content(dialect, schema, schema.names, "v", "a"),
    )
    no_end = f"CAST(NULL AS {dialect.sql_type(VERSION_FIELDS[1].type)}) AS {END_COLUMN}"
    begun = join(
        f"SELECT {', '.join(own)}, {time} AS {START_COLUMN}, {no_end},",
        f"{lsn} AS {START_LSN_COLUMN},",
        f"CAST(NULL AS BIGINT) AS {END_LSN_COLUMN}, '{NEW}' AS {OP_COLUMN}",
        f"FROM {new} AS a ANTI JOIN {current} AS v ON {same}",
    )
    held = [dialect.column("v", name) for name in schema.names]
    compared = current
    if scope is not None:
        in_scope = same_key(dialect, schema, key, "d", "e")
        compared = f"(SELECT d.* FROM {current} AS d SEMI JOIN {scope} AS e ON {in_scope})"
    ended = join(
        f"SELECT {', '.join(held)}, v.{START_COLUMN}, {time} AS {END_COLUMN},",
        f"v.{START_LSN_COLUMN}, {lsn} AS {END_LSN_COLUMN}, '{END}' AS {OP_COLUMN}",
        f"FROM {compared} AS v ANTI JOIN {new} AS a ON {same}",
    )
    return f"{begun} UNION ALL {ended}"
