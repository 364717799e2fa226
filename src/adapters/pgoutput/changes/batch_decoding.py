"""Message runs to the change batches of the port.

Several threads decode. A large batch is handed over in parts, so that memory stays bounded. Columns
get their numbers from the catalog, because messages only have names.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from adapters.pgoutput.wire.decoder import PgoutputDecoder
from cdc_core.values.changes import ChangeBatch, TableChanges
from cdc_core.values.lsn import ZERO_LSN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence

    from adapters.pgoutput.wire.decoder import DecodedBatch
    from adapters.pgoutput.wire.message_run import MessageRun
    from adapters.pgoutput.wire.types import TypeMap
    from cdc_core.values.lsn import Lsn
    from cdc_core.values.relation import Relation
    from cdc_core.values.table_rules import ColumnRules

#: Threads that decode; more would wait for one another.
_DECODERS = 2
#: Bytes of messages in a part of a batch, and how far decoding may be ahead of the caller.
PART_BYTES = 32 << 20


class BatchDecoding:
    """Makes decoders, and batches with them.

    `types` and `key_for` are those of `PgoutputDecoder`. `numbers_of` returns the numbers of the
    columns by name, for each of these relations (OIDs) that the catalog has.
    """

    def __init__(
        self,
        types: Callable[[Collection[int]], TypeMap],
        key_for: Callable[[int], tuple[str, ...]],
        numbers_of: Callable[[Sequence[int]], Mapping[int, Mapping[str, int]]],
        batch_max_bytes: int,
    ) -> None:
        self._types = types
        self._key_for = key_for
        self._numbers_of = numbers_of
        self._part_bytes = min(PART_BYTES, batch_max_bytes)
        self._relations: dict[Relation, Relation] = {}

    def new_decoder(self) -> PgoutputDecoder:
        return PgoutputDecoder(self._types, self._key_for)

    def batches(
        self,
        runs: Iterator[MessageRun],
        decoder: PgoutputDecoder,
        after: Lsn,
        tables: Collection[int],
        rules: Mapping[int, ColumnRules],
    ) -> Generator[ChangeBatch, None, None]:
        """Decode runs as they arrive, several at a time. Yields batches, or parts of a batch."""
        with ThreadPoolExecutor(_DECODERS, "pgbronze-decoder") as pool:
            decoded: list[Future[DecodedBatch]] = []
            wire_bytes = 0
            for run in runs:
                if len(run):
                    wire_bytes += run.size
                    scanned = decoder.scan(
                        run.buffer, run.offsets, after=after, tables=tables, rules=rules
                    )
                    decoded.append(pool.submit(scanned))
                    del scanned
                    if len(decoded) > _DECODERS:
                        # Keep only those runs in memory that are being decoded.
                        decoded[-1 - _DECODERS].result()
                if run.reached is not None or wire_bytes >= self._part_bytes:
                    reached = None if run.reached is None else max(run.reached, after)
                    batch = self._batch([one.result() for one in decoded], reached, wire_bytes)
                    decoded, wire_bytes = [], 0
                    yield batch
                    del batch
                del run

    def _batch(
        self, decoded: list[DecodedBatch], reached: Lsn | None, wire_bytes: int
    ) -> ChangeBatch:
        kept = [one for one in decoded if one.transactions]
        ends = [one.end_lsn for one in decoded if one.end_lsn is not None]
        return ChangeBatch(
            self._with_column_numbers([table for one in decoded for table in one.tables]),
            max(reached or ZERO_LSN, *ends) if ends else reached or ZERO_LSN,
            kept[-1].last_commit_lsn if kept else None,
            kept[-1].last_committed_at if kept else None,
            sum(one.transactions for one in kept),
            wire_bytes,
            complete=reached is not None,
        )

    def _with_column_numbers(self, tables: list[TableChanges]) -> list[TableChanges]:
        """Number columns as the catalog does for their names now; 0 for names it does not have."""
        new = {t.relation for t in tables} - self._relations.keys()
        if new:
            numbers = self._numbers_of([relation.oid for relation in new])
            for relation in new:
                known = numbers.get(relation.oid, {})
                columns = tuple(replace(c, attnum=known.get(c.name, 0)) for c in relation.columns)
                self._relations[relation] = replace(relation, columns=columns)
        return [replace(t, relation=self._relations[t.relation]) for t in tables]
