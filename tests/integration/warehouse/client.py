"""What a test holds: where the warehouse is, how to reach it, and its fault switch and log."""

from __future__ import annotations

import json
import ssl
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .catalog import folder_of

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from .faults import Kind

DEFAULT_TOKEN = "local-token"
DEFAULT_CLIENT_ID = "local-client"
DEFAULT_CLIENT_SECRET = "local-secret"


@dataclass(frozen=True)
class Warehouse:
    """A running local warehouse. Speaks to it over HTTPS, so it works from any process."""

    port: int
    ca_file: str
    root: str
    catalog: str = "main"
    token: str = DEFAULT_TOKEN
    client_id: str = DEFAULT_CLIENT_ID
    client_secret: str = DEFAULT_CLIENT_SECRET

    # -- how to reach it

    @property
    def server_hostname(self) -> str:
        return f"localhost:{self.port}"

    @property
    def host(self) -> str:
        """For `databricks-sdk`."""
        return f"https://{self.server_hostname}"

    @property
    def http_path(self) -> str:
        return "/sql/1.0/warehouses/local"

    @property
    def connection_parameters(self) -> dict[str, Any]:
        """What the connector needs besides host, path and credentials.

        `_connection_uri`, since the connector appends port 443 to any host name; telemetry is off,
        not to be counted as traffic.
        """
        return {
            "_connection_uri": self.host + self.http_path,
            "_tls_trusted_ca_file": self.ca_file,
            "enable_telemetry": False,
        }

    def dlt_credentials(self, *, oauth: bool = False) -> dict[str, Any]:
        """Credentials for `dlt.destinations.databricks(credentials=…)`."""
        login = (
            {"client_id": self.client_id, "client_secret": self.client_secret}
            if oauth
            else {"access_token": self.token}
        )
        return {
            "server_hostname": self.server_hostname,
            "http_path": self.http_path,
            "catalog": self.catalog,
            "connection_parameters": self.connection_parameters,
            **login,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment for `databricks-sdk` (its HTTP client reads the bundle's path here)."""
        return {
            "DATABRICKS_HOST": self.host,
            "DATABRICKS_TOKEN": self.token,
            "DATABRICKS_WAREHOUSE_ID": "local",
            "REQUESTS_CA_BUNDLE": self.ca_file,
        }

    def connect(self, **options: Any) -> Any:
        """A connection of `databricks-sql-connector`, its waits the shortest that it allows."""
        from databricks import sql

        settings: dict[str, Any] = {
            "_retry_delay_min": 0.1,
            "_retry_delay_max": 5.0,
            "server_hostname": self.server_hostname,
            "http_path": self.http_path,
            "access_token": self.token,
            "catalog": self.catalog,
            **self.connection_parameters,
        }
        return sql.connect(**{**settings, **options})

    def spark_remote(self) -> str:
        """For `SparkSession.builder.remote`: a session as a job on Databricks has one."""
        return f"sc://127.0.0.1:{self._control('POST', 'spark', {})['port']}"

    # -- its tables, read without it

    def table_path(self, schema: str, table: str, catalog: str | None = None) -> Path:
        folder = Path(self.root) / (catalog or self.catalog) / schema.lower()
        return folder / "tables" / folder_of(table)

    def volume_path(self, schema: str, volume: str) -> Path:
        return Path(self.root) / self.catalog / schema / "volumes" / volume

    def read_table(self, schema: str, table: str, catalog: str | None = None) -> pa.Table:
        """The table's rows as delta-rs reads them from disk, column mapping included."""
        return read_delta(self.table_path(schema, table, catalog))

    # -- faults and log

    def _control(
        self, method: str, what: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.host}/_control/{what}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        context = ssl.create_default_context(cafile=self.ca_file)
        with urllib.request.urlopen(request, timeout=60, context=context) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def add_fault(self, pattern: str, kind: Kind = "error", **settings: Any) -> None:
        """Arm a fault; `faults.Fault` says what its settings mean. Counting begins now."""
        self._control("POST", "faults", {"pattern": pattern, "kind": kind, **settings})

    def faults(self) -> list[dict[str, Any]]:
        """Armed faults, each with how often it was `seen` and `fired`."""
        found: list[dict[str, Any]] = self._control("GET", "state")["faults"]
        return found

    def clear_faults(self) -> None:
        self._control("POST", "clear", {"faults": True, "log": False})

    def lag(self, seconds: float) -> None:
        """From now on `information_schema` shows definitions so many seconds late."""
        self._control("POST", "lag", {"seconds": seconds})

    def list_at_most(self, files: int) -> None:
        """From now on LIST gives no more than so many files."""
        self._control("POST", "listed", {"at_most": files})

    def clear_log(self) -> None:
        self._control("POST", "clear", {"faults": False, "log": True})

    def statements(self) -> list[dict[str, Any]]:
        """The statements received since the log was cleared, in order."""
        found: list[dict[str, Any]] = self._control("GET", "state")["statements"]
        return found

    def counters(self) -> dict[str, int]:
        """`sessions`, `sessions_closed`, `statements`, `thrift_requests`, `http_requests`;
        `refused` for their token, `tokens` that were issued."""
        found: dict[str, int] = self._control("GET", "state")["counters"]
        return found

    def headers(self) -> dict[str, str]:
        """Those of the last Thrift request, names in lower case."""
        found: dict[str, str] = self._control("GET", "state")["headers"]
        return found

    def change_access(self, *, end_tokens: bool = False, **settings: Any) -> None:
        """Change who may enter: `rest.Access` says what its settings mean."""
        self._control("POST", "access", {"end_tokens": end_tokens, **settings})

    def open_sessions(self) -> int:
        return int(self._control("GET", "state")["open_sessions"])

    def wipe(self) -> None:
        """Remove every schema, with its tables and volumes, and end every session."""
        self._control("POST", "wipe", {})

    def reset(self) -> None:
        """Faults disarmed, no lag, log empty, no schemas, logins as at the start; secrets stay."""
        self._control("POST", "reset", {})

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Warehouse:
        return cls(**json.loads(text))


def read_delta(path: Path, version: int | None = None) -> pa.Table:
    """A Delta table's rows by delta-rs, whatever its column names are mapped to; where that does
    not know how to read a table, by the files and the schema that it names."""
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder

    table = DeltaTable(str(path), version=version)
    if "typeWidening" in (table.protocol().reader_features or ()):
        empty = pa.schema(table.schema().to_arrow()).empty_table()
        rows = pa.concat_tables([empty, *(_read_file(file, table) for file in table.file_uris())])
    else:
        rows = pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
    wanted = [pa.field(f.name, _plain(f.type), f.nullable) for f in rows.schema]
    return rows.cast(pa.schema(wanted))


def _read_file(file: str, table: DeltaTable) -> pa.Table:
    """The rows of one file in the table's columns, in types that may be wider than the file's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(table.schema().to_arrow())
    stored = pq.ParquetFile(file).read()
    columns = []
    for field, own in zip(schema, json.loads(table.schema().to_json())["fields"], strict=True):
        physical = own["metadata"].get("delta.columnMapping.physicalName", own["name"])
        held = physical in stored.column_names
        columns.append(
            stored.column(physical).cast(field.type) if held else pa.nulls(len(stored), field.type)
        )
    return pa.table(columns, schema=schema)


def _plain(arrow: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    views = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return views.get(arrow, arrow)
