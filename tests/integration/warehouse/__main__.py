"""Start a warehouse by hand: `python -m tests.integration.warehouse --root DIR --port N`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from .client import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_TOKEN, Warehouse
from .rest import Access
from .server import WarehouseServer, start_in_thread

if TYPE_CHECKING:
    from types import FrameType


def _settings(warehouse: Warehouse) -> str:
    parameters = ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in warehouse.connection_parameters.items()
    )
    variables = "\n".join(f"export {k}={v}" for k, v in warehouse.environment.items())
    return f"""\
A local warehouse listens on {warehouse.host}; tables are folders below {warehouse.root}.

# .dlt/secrets.toml
[destination.databricks.credentials]
server_hostname = "{warehouse.server_hostname}"
http_path = "{warehouse.http_path}"
catalog = "{warehouse.catalog}"
access_token = "{warehouse.token}"
connection_parameters = {{ {parameters} }}
# or, instead of access_token (and with REQUESTS_CA_BUNDLE set as below):
# client_id = "{warehouse.client_id}"
# client_secret = "{warehouse.client_secret}"

# databricks-sdk
{variables}

Stop it with Ctrl-C.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.warehouse")
    parser.add_argument("--root", type=Path, help="folder of the tables (default: a new one)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--catalog", action="append", help="catalogs that exist (default: main)")
    parser.add_argument("--json", action="store_true", help="print the settings as one JSON line")
    parser.add_argument(
        "--until-stdin-closes", action="store_true", help="end when the parent process does"
    )
    arguments = parser.parse_args()
    root: Path = arguments.root or Path(tempfile.mkdtemp(prefix="warehouse-"))
    root.mkdir(parents=True, exist_ok=True)
    catalogs = tuple(arguments.catalog or ("main",))
    access = Access(DEFAULT_TOKEN, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET)
    server = WarehouseServer(root, arguments.port, access, catalogs)
    warehouse = Warehouse(
        port=server.port,
        ca_file=str(server.ca_file),
        root=str(server.catalog.root),
        catalog=catalogs[0],
    )
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    start_in_thread(server)
    print(warehouse.to_json() if arguments.json else _settings(warehouse), flush=True)
    if arguments.until_stdin_closes:

        def end_with_parent() -> None:
            sys.stdin.read()
            stop.set()

        threading.Thread(target=end_with_parent, daemon=True).start()
    stop.wait()
    server.stop()


if __name__ == "__main__":
    main()
