"""The SQL of a table's versions (SCD type 2): sources, and the rules to merge them.

`versions` is the table of versions; see `history_sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.dlt_destination.sql.merge_sql import (
    MergeRules,
    join,
    key_values,
    partition,
    same_content,
    same_key,
)
from cdc_core.values.history import (
    BASE,
    END_COLUMN,
    END_LSN_COLUMN,
    START_COLUMN,
    START_LSN_COLUMN,
    VERSION_FIELDS,
)
from cdc_core.values.merges import (
    COMMITTED_AT_COLUMN,
    DELETE,
    LSN_COLUMN,
    OP_COLUMN,
    REF_COLUMN,
    UNCHANGED_COLUMN,
    UPSERT,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from adapters.dlt_destination.sql.dialect import Dialect
    from cdc_core.values.history import Moment, VersionMerge

VERSION_COLUMNS = tuple(f.name for f in VERSION_FIELDS)

#: Operations of a source for versions: a new version, and the end of one that exists.
NEW, END = "U", "C"


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
