"""The soak's command line: a budget of minutes, a seed, a destination."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from adapters.embedded_postgres import EmbeddedPostgres
from tests.integration.warehouse.fixtures import running_warehouse
from tests.soak.rounds import SERVER, Soak, Unequal
from tests.support.lakes import LocalLake, WarehouseLake


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no round after these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--destination", choices=["duckdb", "delta", "databricks"], default="duckdb"
    )
    parser.add_argument("--steps", type=int, default=60, help="transactions of a round")
    parser.add_argument("--history", action="store_true", help="every table has a log")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pgbronze-soak-"))
    started = time.monotonic()
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(settings=SERVER))
        lake: LocalLake | WarehouseLake = LocalLake(chosen.destination, folder)
        if chosen.destination == "databricks":
            lake = WarehouseLake(stack.enter_context(running_warehouse(folder / "root")), folder)
        soak = Soak(server, lake, chosen.seed, chosen.steps, history=chosen.history)
        soak.prepare()
        while time.monotonic() - started < chosen.minutes * 60:
            try:
                soak.round()
            except Unequal as error:
                print(error, file=sys.stderr)
                return 1
            told = ", ".join(f"{name} {count}" for name, count in sorted(soak.counts.items()))
            print(f"round {soak.rounds} equal, {time.monotonic() - started:.0f} s: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
