"""TLS modes pass through to libpq, on every connection: control, Arrow sessions and streams.

On the test's server itself where its build has TLS, and behind a front that has it in any case.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from adapters.embedded_postgres import EmbeddedPostgres
from adapters.pgoutput.catalog.catalog import PgCatalog
from adapters.pgoutput.changes.change_source import PgChangeSource
from adapters.pgoutput.session.settings import SourceSettings
from cdc_core.values.errors import SourceUnavailable
from tests.support import oracle
from tests.support.lakes import LocalLake
from tests.support.pipeline import InProcess
from tests.support.postgres import BIN, with_database
from tests.support.tls import Certificates, TlsFront, make_certificates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.postgres import Server


@dataclass
class Secured:
    """A database that can be reached by TLS at `port`, and without at its own DSN."""

    plain_dsn: str
    port: int
    certificates: Certificates
    front: TlsFront | None = None

    def dsn(self, parameters: str, host: str = "localhost") -> str:
        parts = urlsplit(self.plain_dsn)
        place = f"{parts.username}:{parts.password}@{host}:{self.port}"
        return urlunsplit(parts._replace(netloc=place, query=parameters))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secured_server(certificates: Certificates) -> Iterator[EmbeddedPostgres]:
    """A server with `ssl = on`, if the build of the test's binaries has TLS."""
    # Below /tmp, where the server's account can read them.
    folder = Path(mkdtemp(prefix="pgbronze-tls-", dir="/tmp"))
    settings = {"ssl": "on"}
    try:
        for name, path in (("cert", certificates.certificate), ("key", certificates.key)):
            copy = Path(shutil.copy(path, folder))
            copy.chmod(0o600)
            settings[f"ssl_{name}_file"] = str(copy)
        if os.geteuid() == 0:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "nobody")
        with ExitStack() as stack:
            server = EmbeddedPostgres(bin_dir=os.environ.get(BIN), settings=settings)
            try:
                stack.enter_context(server)
            except SourceUnavailable as refused:
                if "SSL is not supported by this build" not in str(refused):
                    raise
                pytest.skip("the server's build has no TLS; it is tested behind a front instead")
            yield server
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["behind a front", "of the server itself"])
def secured(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Secured]:
    if request.param == "behind a front":
        server: Server = request.getfixturevalue("postgres")
        with server.database() as dsn:
            port = urlsplit(dsn).port
            assert port is not None
            with TlsFront(certificates, port).running() as front:
                yield Secured(dsn, front.port, certificates, front)
        return
    embedded: EmbeddedPostgres = request.getfixturevalue("secured_server")
    name = f"tls_{os.urandom(4).hex()}"
    with psycopg.connect(embedded.dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
    yield Secured(with_database(embedded.dsn, name), embedded.port, certificates)


def test_whole_runs_with_the_certificate_verified(secured: Secured, tmp_path: Path) -> None:
    lake = LocalLake("duckdb", tmp_path)
    verified = f"sslmode=verify-full&sslrootcert={secured.certificates.authority}"
    slot = {"SOURCES__PG_REPLICATION__SLOT_NAME": f"tls_{os.urandom(4).hex()}"}
    pipeline = InProcess(secured.dsn(verified), lake, **slot)
    with psycopg.connect(secured.plain_dsn, autocommit=True) as sql:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        sql.execute("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 3000) AS i")
        pipeline.run("snapshot")
        sql.execute("UPDATE t SET v = 'y' WHERE id % 3 = 0; DELETE FROM t WHERE id % 7 = 0")
        pipeline.run("cdc")
        oracle.assert_equal(sql, lake, ["t"])
        pipeline.run("verify")
        pipeline.run("slot", "drop")
    if secured.front is not None:
        assert secured.front.secured > 5
        assert secured.front.plain == 0


def test_a_stream_by_tls_loses_and_waits_for_nothing(secured: Secured) -> None:
    """What OpenSSL holds does not show on the socket, where fewer wake-ups would wait for it."""
    settings = SourceSettings(
        secured.dsn("sslmode=require"), slot_name=f"tls_{os.urandom(4).hex()}"
    )
    catalog = PgCatalog(settings)
    with psycopg.connect(secured.plain_dsn, autocommit=True) as sql:
        sql.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        (table,) = catalog.publish()
        tables = {table.relation.oid}
        with PgChangeSource(settings) as source:
            position, told = source.create_slot(), 0
            # The first reading is in bulk, those that go on from it are a stream.
            for number, rows in enumerate((1, 20_000, 1, 30_000, 3)):
                first = 1 + number * 100_000
                sql.execute(
                    "INSERT INTO t SELECT %s::int + i, repeat('x', 60)"
                    " FROM generate_series(1, %s::int) AS i",
                    [first, rows],
                )
                for batch in source.read(position, source.current_lsn(), tables):
                    told += batch.changes
                    position = batch.end_lsn
                source.confirm(position)
                assert told == sql.execute("SELECT count(*) FROM t").fetchone()[0]  # type: ignore[index]
            query = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
            assert sql.execute(query).fetchone() == (secured.front is None,)
            source.drop_slot()
    catalog.close()


REFUSED = [
    ("sslmode=verify-full&sslrootcert={stranger}", "localhost", "certificate verify failed"),
    ("sslmode=verify-ca&sslrootcert={stranger}", "localhost", "certificate verify failed"),
    ("sslmode=verify-full&sslrootcert={authority}", "127.0.0.1", "does not match host name"),
    ("sslmode=verify-full&sslrootcert=/nowhere/ca.pem", "localhost", "root certificate file"),
]


@pytest.mark.parametrize(("parameters", "host", "told"), REFUSED)
def test_a_certificate_that_is_not_trusted_is_a_wrong_setting(
    secured: Secured, tmp_path: Path, parameters: str, host: str, told: str
) -> None:
    stranger = make_certificates(tmp_path / "stranger")
    dsn = secured.dsn(
        parameters.format(stranger=stranger.authority, authority=secured.certificates.authority),
        host,
    )
    pipeline = InProcess(dsn, LocalLake("duckdb", tmp_path), LOG_LEVEL="DEBUG")
    for command in ("snapshot", "cdc"):
        said = pipeline.run(command, code=2)
        # The front logs in this process, at times behind it: that the other side went away.
        (line,) = (each for each in said.splitlines() if each.startswith("pgbronze: "))
        assert told in line
        assert "sources.pg_replication.credentials" in line
        assert str(urlsplit(dsn).password) not in said


def test_an_authority_is_enough_for_another_name_of_the_host(secured: Secured) -> None:
    ca = f"sslmode=verify-ca&sslrootcert={secured.certificates.authority}"
    settings = SourceSettings(secured.dsn(ca, "127.0.0.1"))
    for each in (settings, replace(settings, conninfo=secured.dsn("sslmode=prefer"))):
        catalog = PgCatalog(each)
        assert catalog.tables() == []
        catalog.close()
    if secured.front is not None:
        assert (secured.front.secured, secured.front.plain) == (2, 0)
