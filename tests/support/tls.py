"""TLS for PostgreSQL in tests: certificates of an authority of one's own, and a front that speaks
TLS for a server that was built without it.

Manual: "Message Flow", "SSL Session Encryption"; "Secure TCP/IP Connections with SSL".
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_GSS_REQUEST = (8).to_bytes(4, "big") + (80877104).to_bytes(4, "big")


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: an authority's certificate, and a server's with its key."""

    authority: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, host: str = "localhost") -> Certificates:
    """A new authority, and a certificate of it for `host` alone."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = _name(f"Authority of {folder.name}")
    authority = _signed(issuer, authority_key, issuer, authority_key, None)
    certificate = _signed(_name(host), key, issuer, authority_key, host)
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    made.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    made.key.chmod(0o600)
    return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    host: str | None,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    )
    if host is not None:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())


class TlsFront:
    """Answers `SSLRequest` as a server does, and passes on what comes through."""

    def __init__(self, certificates: Certificates, upstream_port: int) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates.certificate, certificates.key)
        self._upstream_port = upstream_port
        self.port = 0
        #: Connections that went on with TLS, and without.
        self.secured = self.plain = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            if first == _GSS_REQUEST:
                writer.write(b"N")
                first = await reader.readexactly(8)
            if first == _SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                self.secured += 1
                first = b""
            else:
                self.plain += 1
            back, forth = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            forth.write(first)
            ways = [
                asyncio.ensure_future(_pump(reader, forth)),
                asyncio.ensure_future(_pump(back, writer)),
            ]
            # The end of either side is the end of both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            forth.close()
        writer.close()

    @contextlib.contextmanager
    def running(self) -> Iterator[TlsFront]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="tls-front", daemon=True)
        thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), loop
        ).result(10)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
