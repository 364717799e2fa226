"""What workers send to the driver of a full load: rows in Arrow's IPC format, as binary values.

Spark carries the bytes and does not look into them: no value is converted, so each is exactly what
our codec made of it, together with the values that do not fit their type. A message is cut into
pieces, because Spark Connect limits the size of a row.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from adapters.pgoutput.snapshot.guards import SnapshotGone
from adapters.pgoutput.wire.query_rows import ReadRows
from adapters.pgoutput.wire.text import table_of
from cdc_core.values.errors import (
    CdcError,
    DecodeError,
    OperatorNeeded,
    SettingsError,
    SourceUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: `place` is the number of the range in the job; `number` orders the pieces of a place.
SCHEMA = pa.schema(
    [
        ("place", pa.int32()),
        ("number", pa.int32()),
        ("kind", pa.string()),
        ("last", pa.bool_()),
        ("piece", pa.binary()),
    ]
)
PIECE_BYTES = 4 << 20

#: `rows`; `end`: the range is read; `rest`: it is not, but this task has read enough; `error`.
Kind = Literal["rows", "end", "rest", "error"]

#: Errors whose class the driver gets back; of others it gets the base class.
_ERRORS = {
    error.__name__: error
    for error in (
        CdcError, DecodeError, OperatorNeeded, SettingsError, SnapshotGone, SourceUnavailable,
    )
}  # fmt: skip


@dataclass
class RangeResult:
    """What a task read of a range. `ended`: all of it."""

    chunks: list[ReadRows]
    ended: bool = False
    error: CdcError | None = None

    @property
    def rows(self) -> int:
        return sum(len(chunk.rows) for chunk in self.chunks)


def rows_body(chunk: ReadRows) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, chunk.rows.schema) as writer:
        writer.write_table(chunk.rows)
    return pickle.dumps((len(chunk.rows), sink.getvalue().to_pybytes(), chunk.unrepresentable))


def error_body(error: CdcError) -> bytes:
    return pickle.dumps((type(error).__name__, error.what, error.cure))


def batches(place: int, messages: Iterable[tuple[Kind, bytes]]) -> Iterator[pa.RecordBatch]:
    """Messages of a place as record batches of `SCHEMA`, one per piece."""
    number = 0
    for kind, body in messages:
        view = memoryview(body)
        for start in range(0, max(1, len(view)), PIECE_BYTES):
            last = start + PIECE_BYTES >= len(view)
            columns = [[place], [number], [kind], [last], [view[start : start + PIECE_BYTES]]]
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(column, type_)
                    for column, type_ in zip(columns, SCHEMA.types, strict=True)
                ],
                schema=SCHEMA,
            )
            number += 1


def results(table: pa.Table) -> Mapping[int, RangeResult]:
    """What a job of several places returned, by place."""
    table = table.sort_by([("place", "ascending"), ("number", "ascending")])
    found: dict[int, RangeResult] = {}
    pieces: list[bytes] = []
    columns = [table.column(name) for name in SCHEMA.names]
    for row in range(len(table)):
        place, _, kind, last, piece = (column[row] for column in columns)
        pieces.append(piece.as_buffer())
        if not last.as_py():
            continue
        body, pieces = (pieces[0] if len(pieces) == 1 else b"".join(pieces)), []
        result = found.setdefault(place.as_py(), RangeResult([]))
        match kind.as_py():
            case "rows":
                result.chunks.append(_rows(body))
            case "error":
                result.error = _error(body)
            case "end":
                result.ended = True
    return found


# The bytes come from our own workers, as Spark's own pickled functions do.
def _rows(body: bytes) -> ReadRows:
    count, stream, unrepresentable = pickle.loads(body)  # noqa: S301
    rows = pa.ipc.open_stream(stream).read_all()
    if not rows.column_names:
        rows = table_of(rows.schema, [], count)
    return ReadRows(rows, unrepresentable)


def _error(body: bytes) -> CdcError:
    name, what, cure = pickle.loads(body)  # noqa: S301
    return _ERRORS.get(name, CdcError)(what, cure)
