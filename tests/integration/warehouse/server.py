"""The HTTPS server: one port for Thrift, REST, presigned addresses, and the control of tests."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import socket
import ssl
import threading
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from . import information_schema
from .catalog import Catalog
from .engine import Engine
from .faults import DropConnection, HttpFault, Recorder
from .rest import Access, Request, Response, Rest
from .session import Session
from .statements import Statements
from .thrift_service import Service
from .volumes import LISTED_AT_MOST, PRESIGNED, Volumes

if TYPE_CHECKING:
    from pathlib import Path

    from .spark_connect import SparkConnectServer

USER = "tester@example.com"
CONTROL = "/_control/"
TOKENS = "/oidc/v1/token"


def make_certificate(folder: Path) -> Path:
    """A self-signed certificate for localhost and its key, in one file; returns its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "ca.pem").write_bytes(certificate.public_bytes(encoding))
    return folder / "ca.pem"


class WarehouseServer:
    """Everything behind one port of localhost."""

    def __init__(self, root: Path, port: int, access: Access, catalogs: tuple[str, ...]) -> None:
        self.catalog = Catalog(root, catalogs)
        self.recorder = Recorder()
        self.engine = Engine()
        self.volumes = Volumes(self.catalog)
        self.access = access
        self._access_at_start = {f.name: getattr(access, f.name) for f in fields(access)}
        statements = Statements(self.catalog, self.engine, self.volumes)
        # What the first statement of a process would wait for, so that timings say nothing of it.
        statements.execute(
            Session(catalogs[0], "default", USER), "SELECT count(*) FROM information_schema.tables"
        )
        self.service = Service(statements, self.recorder, catalogs[0], USER)
        self._spark: SparkConnectServer | None = None
        self.rest = Rest(self.catalog, self.volumes, access, USER)
        self.ca_file = make_certificate(self.catalog.root / ".warehouse")
        self._http = _HttpServer(("127.0.0.1", port), _handler_of(self))
        self._http.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._http.tls.load_cert_chain(self.ca_file, self.ca_file.with_name("key.pem"))
        self.port = int(self._http.server_address[1])
        self.base_url = f"https://localhost:{self.port}"
        self.rest.base_url = self.volumes.base_url = self.base_url

    def serve(self) -> None:
        self._http.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        if self._spark is not None:
            self._spark.stop()
        self._http.shutdown()
        self._http.server_close()
        self.service.close()
        self.engine.close()

    # -- requests

    def answer(self, request: Request) -> Response:
        """Raises `DropConnection` and `HttpFault`."""
        if request.path.startswith(CONTROL):
            return self._control(request)
        if request.path.startswith("/sql/"):
            self.recorder.count("thrift_requests")
            self.recorder.headers = request.headers
            if refusal := self.access.refusal(request.headers.get("authorization")):
                self.recorder.count("refused")
                return refusal
            answer = self.service.handle(request.body)
            return Response(answer, headers={"Content-Type": "application/x-thrift"})
        self.recorder.count("http_requests")
        # Without what makes each presigned address another one.
        path = re.sub(rf"^{PRESIGNED}\w+/", PRESIGNED, request.path)
        fault = self.recorder.before(f"HTTP {request.method} {path}")
        if fault is not None and fault.kind == "delay":
            fault.wait()
        if fault is not None and fault.kind in ("error", "conflict"):
            return Response({"error_code": fault.error_class, "message": fault.message}, 500)
        response = self.rest.answer(request)
        if path == TOKENS and response.status == 200:
            self.recorder.count("tokens")
        if fault is not None and fault.kind == "drop_after":
            raise DropConnection
        return response

    def _spark_port(self) -> int:
        """Where Spark Connect is spoken, from the first question on: few tests need it."""
        if self._spark is None:
            from .spark_connect import SparkConnectServer

            self._spark = SparkConnectServer(self.service)
        return self._spark.port

    def _wipe(self) -> None:
        self.service.forget_sessions()
        self.catalog.lag.start(0.0, {})
        self.volumes.listed_at_most = LISTED_AT_MOST
        self.catalog.wipe()

    def _control(self, request: Request) -> Response:
        match request.method, request.path.removeprefix(CONTROL):
            case "GET", "state":
                open_sessions = self.service.open_sessions
                return Response({**self.recorder.snapshot(), "open_sessions": open_sessions})
            case "POST", "faults":
                self.recorder.add_fault(**request.json)
                return Response({})
            case "POST", "clear":
                self.recorder.clear(**request.json)
                return Response({})
            case "POST", "access":
                self.access.change(**request.json)
                return Response({})
            case "POST", "reset":
                self.access.change(**self._access_at_start, end_tokens=True)
                self.recorder.clear()
                self._wipe()
                return Response({})
            case "POST", "wipe":
                self._wipe()
                return Response({})
            case "POST", "lag":
                information_schema.start_lag(self.catalog, request.json["seconds"])
                return Response({})
            case "POST", "spark":
                return Response({"port": self._spark_port()})
            case "POST", "listed":
                self.volumes.listed_at_most = request.json["at_most"]
                return Response({})
            case _:
                return Response({"message": "no such control"}, 404)


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake is done here, in the connection's own thread, so that a client which does
        # not speak TLS holds up nobody.
        try:
            request.settimeout(600)
            tls = self.tls.wrap_socket(request, server_side=True)
        except OSError:
            return
        try:
            super().finish_request(tls, client_address)
        finally:
            with contextlib.suppress(OSError):
                tls.shutdown(socket.SHUT_RDWR)
            tls.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def _handler_of(server: WarehouseServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, *_: Any) -> None:
            """Quiet: the recorder has the log."""

        def _serve(self) -> None:
            body = self._body()
            url = urlsplit(self.path)
            is_json = "json" in self.headers.get("Content-Type", "")
            request = Request(
                method=self.command,
                path=url.path,
                query=dict(parse_qsl(url.query)),
                headers={key.lower(): value for key, value in self.headers.items()},
                body=body,
                json=json.loads(body) if body and is_json else {},
            )
            try:
                response = server.answer(request)
            except DropConnection:
                self.close_connection = True
                return
            except HttpFault as fault:
                response = fault.response
            self._send(response)

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _send(self, response: Response) -> None:
            headers = dict(response.headers)
            if isinstance(response.body, dict):
                data = json.dumps(response.body).encode()
                headers.setdefault("Content-Type", "application/json")
            else:
                data = response.body
            self.send_response(response.status)
            if response.status != 204:
                headers.setdefault("Content-Length", str(len(data)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD" and response.status != 204:
                self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815

    return Handler


def start_in_thread(server: WarehouseServer) -> threading.Thread:
    thread = threading.Thread(target=server.serve, name="warehouse", daemon=True)
    thread.start()
    return thread
