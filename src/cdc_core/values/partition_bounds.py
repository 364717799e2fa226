"""Which rows belong to a partition, by its bounds, without a query to the source.

Only for columns whose values the destination holds exactly: integers, decimals, dates, timestamps.
Source: PostgreSQL manual, "CREATE TABLE", FOR VALUES.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt


class Bound(NamedTuple):
    """The bound of one level of partitions on one column (its number in the root).

    A value is within it if it is one of `values` or, if that is None, if `low` <= value < `high`.
    All are in PostgreSQL's text format. A limit of None means no limit.
    """

    attnum: int
    values: tuple[str, ...] | None
    low: str | None = None
    high: str | None = None


def comparable(bounds: Sequence[Bound], types: Mapping[int, pa.DataType]) -> bool:
    """Whether every bound can be compared with values of its column; `types` by column number."""
    try:
        return bool(bounds) and all(
            bound.attnum in types and _limits(bound, types[bound.attnum]) for bound in bounds
        )
    except pa.ArrowInvalid:
        return False


def disjoint(
    one: Sequence[Bound], other: Sequence[Bound], types: Mapping[int, pa.DataType]
) -> bool:
    """Whether no row can be within both; both must be `comparable`."""
    return any(_apart(a, b, types[a.attnum]) for a in one for b in other if a.attnum == b.attnum)


def rows_within(
    rows: pa.Table, bounds: Sequence[Bound], names: Mapping[int, str]
) -> npt.NDArray[np.bool_]:
    """Return a mask of the rows within every bound; `names` maps column numbers to columns without
    NULL."""
    found = np.ones(len(rows), np.bool_)
    for bound in bounds:
        column = rows.column(names[bound.attnum])
        if bound.values is not None:
            values = pa.array([_scalar(v, column.type).as_py() for v in bound.values], column.type)
            found &= np.asarray(pc.is_in(column, values))
        if bound.low is not None:
            found &= np.asarray(pc.greater_equal(column, _scalar(bound.low, column.type)))
        if bound.high is not None:
            found &= np.asarray(pc.less(column, _scalar(bound.high, column.type)))
    return found


def _limits(bound: Bound, type_: pa.DataType) -> bool:
    """Whether the type compares as in PostgreSQL. Raises `ArrowInvalid` for limits that it cannot
    hold."""
    for text in (*(bound.values or ()), bound.low, bound.high):
        if text is not None:
            _scalar(text, type_)
    exact = pa.types.is_integer, pa.types.is_decimal, pa.types.is_date, pa.types.is_timestamp
    return any(is_one(type_) for is_one in exact)


def _apart(one: Bound, other: Bound, type_: pa.DataType) -> bool:
    if one.values is not None:
        return not any(_holds(other, text, type_) for text in one.values)
    if other.values is not None:
        return _apart(other, one, type_)
    return _ends_before(one, other, type_) or _ends_before(other, one, type_)


def _ends_before(one: Bound, other: Bound, type_: pa.DataType) -> bool:
    if one.high is None or other.low is None:
        return False
    return bool(_value(one.high, type_) <= _value(other.low, type_))


def _holds(bound: Bound, text: str, type_: pa.DataType) -> bool:
    value = _value(text, type_)
    if bound.values is not None:
        return any(value == _value(each, type_) for each in bound.values)
    above = bound.low is None or value >= _value(bound.low, type_)
    return bool(above and (bound.high is None or value < _value(bound.high, type_)))


def _value(text: str, type_: pa.DataType) -> Any:
    return _scalar(text, type_).as_py()


def _scalar(text: str, type_: pa.DataType) -> pa.Scalar[Any]:
    return pa.scalar(text).cast(type_)
