"""Which peers there are, and what each of them can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import dlt_source, rivet, streaming

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.bench import Bench, Contender
    from benchmarks.data import Workload

READERS_OF_CHANGES: Mapping[str, Callable[[Bench, Workload], list[Contender]]] = {
    "rivet": rivet.changes,
    "debezium": streaming.debezium,
    "pgoutput-decoder": streaming.pgoutput_decoder,
}
READERS_OF_TABLES: Mapping[str, Callable[[Bench, str, int], list[Contender]]] = {
    "dlt": dlt_source.tables,
    "rivet": rivet.tables,
}
PEERS = tuple(dict.fromkeys([*READERS_OF_TABLES, *READERS_OF_CHANGES]))


def peers_on_changes(bench: Bench, workload: Workload) -> list[Contender]:
    return [
        contender
        for name, made in READERS_OF_CHANGES.items()
        if name in bench.peers
        for contender in made(bench, workload)
    ]


def peers_on_table(bench: Bench, table: str, rows: int) -> list[Contender]:
    return [
        contender
        for name, made in READERS_OF_TABLES.items()
        if name in bench.peers
        for contender in made(bench, table, rows)
    ]
