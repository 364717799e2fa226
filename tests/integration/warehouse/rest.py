"""REST that `databricks-sdk` uses: OAuth, secrets, Unity Catalog, Files API, warehouses, who am I.

Paths and answers follow docs.databricks.com/api/workspace. Each route is one method; a failure is a
status with `error_code` and `message`.
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
import time
from dataclasses import dataclass, field, fields
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from . import errors
from .catalog import Name
from .delta_log import read_metadata
from .type_names import data_type, sql_type
from .volumes import PRESIGNED, remove, store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .catalog import Catalog
    from .volumes import Volumes

Json = dict[str, Any]


class RestError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error_code": code, "message": message}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    json: Json


@dataclass(frozen=True)
class Response:
    body: bytes | Json = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Access:
    """Who may enter: one personal access token, one service principal, tokens issued to it.

    - `lifetime`: seconds that a token is said to live; `valid_for`: seconds that it does, where it
      is revoked before its time;
    - `status`: of the answer to a token that is unknown or has ended, 401 or 403.
    """

    token: str
    client_id: str
    client_secret: str
    lifetime: int = 3600
    valid_for: float | None = None
    status: int = 403
    issued: dict[str, float] = field(default_factory=dict)

    def issue(self) -> str:
        token = "oauth-" + secrets.token_hex(16)
        valid_for = self.lifetime if self.valid_for is None else self.valid_for
        self.issued[token] = time.time() + valid_for
        return token

    def change(self, *, end_tokens: bool = False, **settings: Any) -> None:
        """Other settings from now on; `end_tokens` ends every token that was issued."""
        for name, value in settings.items():
            if name not in {f.name for f in fields(self)}:
                raise RestError(400, "INVALID_PARAMETER_VALUE", f"no setting {name}")
            setattr(self, name, value)
        if end_tokens:
            self.issued.clear()

    def refusal(self, header: str | None) -> Response | None:
        """The answer to a request that may not enter, as the gateway of a workspace gives it."""
        given = (header or "").removeprefix("Bearer ")
        if secrets.compare_digest(given.encode(), self.token.encode()):
            return None
        if self.issued.get(given, 0.0) > time.time():
            return None
        return refused(self.status, _NOT_ALLOWED[self.status])


_NOT_ALLOWED = {
    401: "Credential was not sent or was of an unsupported type for this API.",
    403: "Invalid access token.",
}


def refused(status: int, message: str, code: str | None = None) -> Response:
    """An error of the gateway: its reason is in the body, and in a header for those who cannot
    read the body."""
    body = {"error_code": code or str(status), "message": message}
    return Response(body, status, {"x-databricks-reason-phrase": message})


class Rest:
    """Answers requests that are not Thrift."""

    def __init__(self, catalog: Catalog, volumes: Volumes, access: Access, user: str) -> None:
        self._catalog = catalog
        self._volumes = volumes
        self._access = access
        self._user = user
        self._lock = threading.Lock()
        self._scopes: dict[str, dict[str, tuple[bytes, int]]] = {}
        #: Where this server is reached; set once it listens.
        self.base_url = ""
        self.warehouse_id = "local"
        route = re.compile
        uc = "/api/2.1/unity-catalog"
        self._routes: tuple[tuple[str, re.Pattern[str], Callable[..., Response]], ...] = (
            ("GET", route(r"/oidc/\.well-known/oauth-authorization-server"), self._oidc),
            ("POST", route(r"/oidc/v1/token"), self._token),
            ("GET", route(r"/\.well-known/databricks-config"), self._host),
            ("GET", route(rf"{PRESIGNED}(\w+)/.*"), self._presigned_get),
            ("PUT", route(rf"{PRESIGNED}(\w+)/.*"), self._presigned_put),
            ("DELETE", route(rf"{PRESIGNED}(\w+)/.*"), self._presigned_delete),
            ("GET", route(r"/api/2\.0/preview/scim/v2/Me"), self._me),
            ("GET", route(r"/api/2\.0/sql/warehouses/?"), self._warehouses),
            ("GET", route(r"/api/2\.0/sql/warehouses/([^/]+)"), self._warehouse),
            ("GET", route(r"/api/2\.0/secrets/scopes/list"), self._list_scopes),
            ("POST", route(r"/api/2\.0/secrets/scopes/create"), self._create_scope),
            ("POST", route(r"/api/2\.0/secrets/scopes/delete"), self._delete_scope),
            ("POST", route(r"/api/2\.0/secrets/put"), self._put_secret),
            ("GET", route(r"/api/2\.0/secrets/get"), self._get_secret),
            ("GET", route(r"/api/2\.0/secrets/list"), self._list_secrets),
            ("POST", route(r"/api/2\.0/secrets/delete"), self._delete_secret),
            ("GET", route(rf"{uc}/catalogs"), self._list_catalogs),
            ("GET", route(rf"{uc}/schemas"), self._list_schemas),
            ("POST", route(rf"{uc}/schemas"), self._create_schema),
            ("GET", route(rf"{uc}/schemas/([^/]+)"), self._get_schema),
            ("DELETE", route(rf"{uc}/schemas/([^/]+)"), self._delete_schema),
            ("GET", route(rf"{uc}/tables"), self._list_tables),
            ("GET", route(rf"{uc}/tables/([^/]+)/exists"), self._table_exists),
            ("GET", route(rf"{uc}/tables/([^/]+)"), self._get_table),
            ("DELETE", route(rf"{uc}/tables/([^/]+)"), self._delete_table),
            ("GET", route(rf"{uc}/volumes"), self._list_volumes),
            ("POST", route(rf"{uc}/volumes"), self._create_volume),
            ("GET", route(rf"{uc}/volumes/([^/]+)"), self._get_volume),
            ("DELETE", route(rf"{uc}/volumes/([^/]+)"), self._delete_volume),
            ("GET", route(r"/api/2\.0/fs/directories(/Volumes/.*)"), self._list_directory),
            ("HEAD", route(r"/api/2\.0/fs/directories(/Volumes/.*)"), self._head_directory),
            ("PUT", route(r"/api/2\.0/fs/directories(/Volumes/.*)"), self._make_directory),
            ("DELETE", route(r"/api/2\.0/fs/directories(/Volumes/.*)"), self._delete_directory),
            ("GET", route(r"/api/2\.0/fs/files(/Volumes/.*)"), self._download),
            ("HEAD", route(r"/api/2\.0/fs/files(/Volumes/.*)"), self._head_file),
            ("PUT", route(r"/api/2\.0/fs/files(/Volumes/.*)"), self._upload),
            ("DELETE", route(r"/api/2\.0/fs/files(/Volumes/.*)"), self._delete_file),
            ("POST", route(r"/api/2\.0/fs/files(/Volumes/.*)"), self._begin_multipart),
            ("POST", route(r"/api/2\.0/fs/create-[a-z-]+"), self._no_presigned_parts),
            ("POST", route(r"/telemetry.*"), self._telemetry),
        )

    def answer(self, request: Request) -> Response:
        try:
            open_path = request.path.startswith(
                ("/oidc/", "/.well-known/", PRESIGNED, "/telemetry")
            )
            refusal = (
                None if open_path else self._access.refusal(request.headers.get("authorization"))
            )
            return refusal or self._route(request)
        except RestError as error:
            return Response(error.body, error.status)
        except errors.SqlError as error:
            code = _REST_CODES.get(error.error_class, (400, "INVALID_PARAMETER_VALUE"))
            return Response({"error_code": code[1], "message": str(error)}, code[0])

    def _route(self, request: Request) -> Response:
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                return handler(request, *(unquote(group) for group in match.groups()))
        raise RestError(404, "ENDPOINT_NOT_FOUND", f"No API found for {request.path}")

    # -- identity

    def _oidc(self, request: Request) -> Response:
        return Response(
            {
                "authorization_endpoint": f"{self.base_url}/oidc/v1/authorize",
                "token_endpoint": f"{self.base_url}/oidc/v1/token",
            }
        )

    def _host(self, request: Request) -> Response:
        return Response({"oidc_endpoint": f"{self.base_url}/oidc", "workspace_id": "1"})

    def _token(self, request: Request) -> Response:
        form = {key: values[0] for key, values in parse_qs(request.body.decode()).items()}
        header = request.headers.get("authorization", "")
        if header.startswith("Basic "):
            user, _, password = base64.b64decode(header[6:]).decode().partition(":")
        else:
            user, password = form.get("client_id", ""), form.get("client_secret", "")
        if (unquote(user), unquote(password)) != (
            self._access.client_id,
            self._access.client_secret,
        ):
            return Response(
                {"error": "invalid_client", "error_description": "Client authentication failed"},
                401,
            )
        if form.get("grant_type") != "client_credentials":
            return Response({"error": "unsupported_grant_type"}, 400)
        return Response(
            {
                "access_token": self._access.issue(),
                "token_type": "Bearer",
                "scope": form.get("scope", "all-apis"),
                "expires_in": self._access.lifetime,
            }
        )

    def _me(self, request: Request) -> Response:
        return Response({"id": "1", "userName": self._user, "active": True})

    def _telemetry(self, request: Request) -> Response:
        return Response({"errors": [], "numProtoSuccess": 0})

    # -- warehouses

    def _describe_warehouse(self) -> Json:
        host, _, port = self.base_url.removeprefix("https://").partition(":")
        return {
            "id": self.warehouse_id,
            "name": "local",
            "state": "RUNNING",
            "enable_serverless_compute": True,
            "odbc_params": {
                "hostname": f"{host}:{port}",
                "path": f"/sql/1.0/warehouses/{self.warehouse_id}",
                "port": int(port),
                "protocol": "https",
            },
        }

    def _warehouses(self, request: Request) -> Response:
        return Response({"warehouses": [self._describe_warehouse()]})

    def _warehouse(self, request: Request, warehouse_id: str) -> Response:
        if warehouse_id != self.warehouse_id:
            raise RestError(404, "RESOURCE_DOES_NOT_EXIST", f"No warehouse {warehouse_id}.")
        return Response(self._describe_warehouse())

    # -- secrets

    def _scope(self, name: Any) -> dict[str, tuple[bytes, int]]:
        if name not in self._scopes:
            raise RestError(404, "RESOURCE_DOES_NOT_EXIST", f"Scope {name} does not exist!")
        return self._scopes[name]

    def _list_scopes(self, request: Request) -> Response:
        scopes = [{"name": name, "backend_type": "DATABRICKS"} for name in self._scopes]
        return Response({"scopes": scopes})

    def _create_scope(self, request: Request) -> Response:
        name = request.json["scope"]
        with self._lock:
            if name in self._scopes:
                raise RestError(400, "RESOURCE_ALREADY_EXISTS", f"Scope {name} already exists!")
            self._scopes[name] = {}
        return Response({})

    def _delete_scope(self, request: Request) -> Response:
        self._scope(request.json["scope"])
        del self._scopes[request.json["scope"]]
        return Response({})

    def _put_secret(self, request: Request) -> Response:
        given = request.json
        if "bytes_value" in given:
            value = base64.b64decode(given["bytes_value"])
        else:
            value = given["string_value"].encode()
        self._scope(given["scope"])[given["key"]] = (value, int(time.time() * 1000))
        return Response({})

    def _get_secret(self, request: Request) -> Response:
        scope, key = request.query["scope"], request.query["key"]
        if key not in self._scope(scope):
            message = f"Failed to get secret {key} for scope {scope}."
            raise RestError(404, "RESOURCE_DOES_NOT_EXIST", message)
        value = base64.b64encode(self._scope(scope)[key][0]).decode()
        return Response({"key": key, "value": value})

    def _list_secrets(self, request: Request) -> Response:
        scope = self._scope(request.query["scope"])
        listed = [{"key": key, "last_updated_timestamp": at} for key, (_, at) in scope.items()]
        return Response({"secrets": listed})

    def _delete_secret(self, request: Request) -> Response:
        scope = self._scope(request.json["scope"])
        if scope.pop(request.json["key"], None) is None:
            raise RestError(404, "RESOURCE_DOES_NOT_EXIST", "No such secret.")
        return Response({})

    # -- Unity Catalog

    def _list_catalogs(self, request: Request) -> Response:
        return Response({"catalogs": [{"name": name} for name in self._catalog.catalogs()]})

    def _schema(self, catalog: str, schema: str) -> Json:
        full = f"{catalog}.{schema}"
        return {"name": schema, "catalog_name": catalog, "full_name": full, "owner": self._user}

    def _list_schemas(self, request: Request) -> Response:
        catalog = request.query["catalog_name"]
        found = [self._schema(catalog, schema) for schema in self._catalog.schemas(catalog)]
        return Response({"schemas": found})

    def _create_schema(self, request: Request) -> Response:
        catalog, schema = request.json["catalog_name"], request.json["name"]
        self._catalog.create_schema(catalog, schema, if_not_exists=False)
        return Response(self._schema(catalog, schema))

    def _get_schema(self, request: Request, full_name: str) -> Response:
        catalog, schema = _split(full_name, 2)
        self._catalog.require_schema(catalog, schema)
        return Response(self._schema(catalog, schema))

    def _delete_schema(self, request: Request, full_name: str) -> Response:
        catalog, schema = _split(full_name, 2)
        force = request.query.get("force", "false").lower() == "true"
        with self._catalog.gate.exclusive():
            self._catalog.drop_schema(catalog, schema, if_exists=False, cascade=force)
        return Response({})

    def _table(self, name: Name, *, columns: bool = True) -> Json:
        table: Json = {
            "name": name.object,
            "catalog_name": name.catalog,
            "schema_name": name.schema,
            "full_name": f"{name.catalog}.{name.schema}.{name.object}",
            "table_type": "MANAGED",
            "data_source_format": "DELTA",
        }
        if columns:
            fields = read_metadata(self._catalog.require_table(name)).fields
            table["columns"] = [
                {
                    "name": column["name"],
                    "position": position,
                    "type_text": sql_type(column["type"]),
                    "type_name": data_type(sql_type(column["type"])),
                    "nullable": column["nullable"],
                }
                for position, column in enumerate(fields)
            ]
        return table

    def _list_tables(self, request: Request) -> Response:
        catalog, schema = request.query["catalog_name"], request.query["schema_name"]
        with self._catalog.gate.shared():
            names = [Name(catalog, schema, t) for t in self._catalog.tables(catalog, schema)]
            return Response({"tables": [self._table(name) for name in names]})

    def _get_table(self, request: Request, full_name: str) -> Response:
        with self._catalog.gate.shared():
            return Response(self._table(Name(*_split(full_name, 3))))

    def _table_exists(self, request: Request, full_name: str) -> Response:
        return Response({"table_exists": self._catalog.table_exists(Name(*_split(full_name, 3)))})

    def _delete_table(self, request: Request, full_name: str) -> Response:
        with self._catalog.gate.exclusive():
            self._catalog.drop_table(Name(*_split(full_name, 3)), if_exists=False)
        return Response({})

    def _volume(self, name: Name) -> Json:
        return {
            "name": name.object,
            "catalog_name": name.catalog,
            "schema_name": name.schema,
            "full_name": f"{name.catalog}.{name.schema}.{name.object}",
            "volume_type": "MANAGED",
            "storage_location": f"/Volumes/{name.catalog}/{name.schema}/{name.object}",
        }

    def _list_volumes(self, request: Request) -> Response:
        catalog, schema = request.query["catalog_name"], request.query["schema_name"]
        names = [Name(catalog, schema, v) for v in self._catalog.volumes(catalog, schema)]
        return Response({"volumes": [self._volume(name) for name in names]})

    def _create_volume(self, request: Request) -> Response:
        given = request.json
        name = Name(given["catalog_name"], given["schema_name"], given["name"])
        self._catalog.create_volume(name, if_not_exists=False)
        return Response(self._volume(name))

    def _existing_volume(self, full_name: str) -> Name:
        name = Name(*_split(full_name, 3))
        if not self._catalog.volume_exists(name):
            raise errors.SqlError("VOLUME_DOES_NOT_EXIST", f"Volume '{full_name}' does not exist.")
        return name

    def _get_volume(self, request: Request, full_name: str) -> Response:
        return Response(self._volume(self._existing_volume(full_name)))

    def _delete_volume(self, request: Request, full_name: str) -> Response:
        name = self._existing_volume(full_name)
        with self._catalog.gate.exclusive():
            self._catalog.drop_volume(name, if_exists=False)
        return Response({})

    # -- files

    def _folder(self, path: str) -> Path:
        folder = self._catalog.volume_file(path)
        if not folder.is_dir():
            raise RestError(404, "NOT_FOUND", f"The directory being accessed is not found: {path}")
        return folder

    def _file(self, path: str) -> Path:
        file = self._catalog.volume_file(path)
        if not file.is_file():
            raise RestError(404, "NOT_FOUND", f"The file being accessed is not found: {path}")
        return file

    def _list_directory(self, request: Request, path: str) -> Response:
        base = path.rstrip("/")
        contents = [
            {
                "name": entry.name,
                "path": f"{base}/{entry.name}",
                "is_directory": entry.is_dir(),
                "file_size": 0 if entry.is_dir() else entry.stat().st_size,
                "last_modified": int(entry.stat().st_mtime * 1000),
            }
            for entry in sorted(self._folder(path).iterdir())
        ]
        return Response({"contents": contents})

    def _head_directory(self, request: Request, path: str) -> Response:
        self._folder(path)
        return Response()

    def _make_directory(self, request: Request, path: str) -> Response:
        self._catalog.volume_file(path).mkdir(parents=True, exist_ok=True)
        return Response(status=204)

    def _delete_directory(self, request: Request, path: str) -> Response:
        folder = self._folder(path)
        if any(folder.iterdir()):
            raise RestError(400, "DIRECTORY_NOT_EMPTY", f"The directory is not empty: {path}")
        folder.rmdir()
        return Response(status=204)

    def _download(self, request: Request, path: str) -> Response:
        file = self._file(path)
        return Response(file.read_bytes(), headers=_file_headers(file))

    def _head_file(self, request: Request, path: str) -> Response:
        file = self._file(path)
        size = str(file.stat().st_size)
        return Response(headers={**_file_headers(file), "Content-Length": size})

    def _upload(self, request: Request, path: str) -> Response:
        file = self._catalog.volume_file(path)
        if file.exists() and request.query.get("overwrite", "false").lower() != "true":
            raise RestError(409, "ALREADY_EXISTS", f"The file being created already exists: {path}")
        store(file, request.body)
        return Response(status=204)

    def _begin_multipart(self, request: Request, path: str) -> Response:
        return Response({"multipart_upload": {"session_token": "none"}})

    def _no_presigned_parts(self, request: Request) -> Response:
        """As a workspace where this is switched off: the client sends the file in one piece."""
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "FILES_API_API_IS_NOT_ENABLED",
            "domain": "filesystem.databricks.com",
        }
        message = "Presigned URLs API is not enabled"
        body = {"error_code": "PERMISSION_DENIED", "message": message, "details": [reason]}
        return Response(body, 403)

    def _delete_file(self, request: Request, path: str) -> Response:
        self._file(path).unlink()
        return Response(status=204)

    def _presigned_get(self, request: Request, token: str) -> Response:
        return Response(self._presigned("GET", token).read_bytes())

    def _presigned_put(self, request: Request, token: str) -> Response:
        store(self._presigned("PUT", token), request.body)
        return Response()

    def _presigned_delete(self, request: Request, token: str) -> Response:
        remove(self._presigned("DELETE", token))
        return Response(status=204)

    def _presigned(self, method: str, token: str) -> Path:
        path = self._volumes.granted(method, token)
        if path is None:
            raise RestError(403, "PERMISSION_DENIED", "The address was not issued for this.")
        return path


_REST_CODES = {
    "NO_SUCH_CATALOG_EXCEPTION": (404, "CATALOG_DOES_NOT_EXIST"),
    "SCHEMA_NOT_FOUND": (404, "SCHEMA_DOES_NOT_EXIST"),
    "SCHEMA_ALREADY_EXISTS": (400, "SCHEMA_ALREADY_EXISTS"),
    "SCHEMA_NOT_EMPTY": (400, "INVALID_STATE"),
    "TABLE_OR_VIEW_NOT_FOUND": (404, "TABLE_DOES_NOT_EXIST"),
    "VOLUME_DOES_NOT_EXIST": (404, "VOLUME_DOES_NOT_EXIST"),
    "VOLUME_ALREADY_EXISTS": (400, "RESOURCE_ALREADY_EXISTS"),
}


def _split(full_name: str, count: int) -> list[str]:
    parts = full_name.lower().split(".")
    if len(parts) != count:
        raise RestError(400, "INVALID_PARAMETER_VALUE", f"Not a name of {count} parts: {full_name}")
    return parts


def _file_headers(file: Path) -> dict[str, str]:
    return {
        "Content-Type": "application/octet-stream",
        "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True),
    }
