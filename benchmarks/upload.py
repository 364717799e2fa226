"""The client's part of the pipeline to Databricks: read, decode, fold, Parquet files, upload.

Run: python -m benchmarks.upload URL, with the settings of a pipeline into DuckDB in the
environment, whose checkpoint says where to read from. Files are sent to URL as to a volume's
storage, and nothing is merged: that is the warehouse's part. Source: Databricks SQL Connector,
"Ingestion" (PUT to a presigned URL).
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from adapters.dlt_destination.destination import DltDestination
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.settings import PipelineSettings
from adapters.dlt_destination.staged_steps import written_steps
from adapters.dlt_destination.table_steps import StagedMerge
from entrypoints.container import Container
from entrypoints.runtime.memory import collect_rarely, prepare_arrow

if TYPE_CHECKING:
    from cdc_core.values.checkpoint import Checkpoint
    from cdc_core.values.merges import LoadBatch


class Uploads(DltDestination):
    """A destination that keeps nothing."""

    def __init__(self, store: DuckDbStore, settings: PipelineSettings, url: str) -> None:
        super().__init__(store, settings)
        self._url = url

    def load(self, batch: LoadBatch, checkpoint: Checkpoint) -> None:  # noqa: ARG002 - kept by nobody
        for steps in written_steps(batch, self._run.folder).values():
            for step in steps:
                for path in step.paths if isinstance(step, StagedMerge) else ():
                    with path.open("rb") as file:
                        size = {"Content-Length": str(path.stat().st_size)}
                        urlopen(Request(self._url, file, size, method="PUT")).close()
                    path.unlink()


class Sink:
    """A server that counts the bytes sent to it. `url` is where it listens."""

    def __init__(self) -> None:
        self.received = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Receiver, self))
        self.url = f"http://127.0.0.1:{self._server.server_port}/file"

    def __enter__(self) -> Sink:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Receiver(BaseHTTPRequestHandler):
    def __init__(self, sink: Sink, *arguments: object) -> None:
        self._sink = sink
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        self._sink.received += left
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Does nothing: standard error is the benchmark's."""


def main(url: str) -> None:
    collect_rarely()
    prepare_arrow()
    container = Container()
    settings = container.settings()
    store = DuckDbStore(settings.section.for_dlt()["credentials"])
    pipeline = PipelineSettings(settings.pipeline.name, settings.pipeline.dataset_name)
    container.destination.override(Uploads(store, pipeline, url))
    print(container.stream_changes().run().changes)
    container.shutdown_resources()


if __name__ == "__main__":
    main(sys.argv[1])
