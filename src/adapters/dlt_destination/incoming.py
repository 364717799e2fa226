"""Rows on their way into a store that takes them as they come.

A store's reader hides what went wrong where they come from, and not all of it is an error of the
store; so it is kept here.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class IncomingRows:
    """Pieces of a table, cast to `schema`; to be gone through once, in any thread.

    `count` are the rows given so far, `error` what ended them too early.
    """

    def __init__(self, pieces: Iterable[pa.Table], schema: pa.Schema) -> None:
        self.schema = schema
        self.count = 0
        self.error: BaseException | None = None
        self._pieces = pieces

    def __iter__(self) -> Iterator[pa.Table]:
        with self._keeping_error():
            for piece in self._pieces:
                self.count += len(piece)
                yield piece if piece.schema.equals(self.schema) else piece.cast(self.schema)

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with self._keeping_error():
            for piece in self:
                yield from piece.to_batches()

    @contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except GeneratorExit:
            raise  # the reader wants no more
        except BaseException as error:
            self.error = error
            raise
