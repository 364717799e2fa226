"""Check PostgreSQL connection strings before connecting, and never quote one in a message.

libpq's own errors repeat the part that it could not parse, which may belong to a password. So this
module first refuses everything that libpq would refuse.
Source: PostgreSQL manual, "Connection Strings", "Parameter Key Words".
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: libpq's parameter key words (PostgreSQL 18).
_KEYWORDS = """
    application_name channel_binding client_encoding connect_timeout dbname
    fallback_application_name gssdelegation gssencmode gsslib host hostaddr keepalives
    keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
    max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer
    oauth_scope options passfile password port replication require_auth requirepeer
    scram_client_key scram_server_key service ssl_max_protocol_version
    ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey
    sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni target_session_attrs
    tcp_user_timeout user
"""
KEYWORDS = frozenset(_KEYWORDS.split())
SECRET_KEYWORDS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

#: Keys of dlt's connection table that have another name in libpq.
TABLE_KEYS = {"username": "user", "database": "dbname"}

_SCHEME = re.compile(r"(postgres(?:ql)?)(\+\w+)?://", re.ASCII)
_PAIR = re.compile(
    r"\s*([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)", re.DOTALL
)


def checked(given: Any) -> str:
    """Return the string for libpq, from a URL, a key=value string or dlt's table of keys. The
    table may be JSON text.

    Raises `ValueError` with a sentence that quotes no part of the value.
    """
    match given:
        case dict():
            return _from_table(given)
        case str() if not given.strip():
            raise ValueError("is empty")
        case str() if _is_json(given):
            return _from_table(_json_object(given, "is"))
        case str() if match := _SCHEME.match(given):
            url = f"{match[1]}://{given[match.end() :]}"
            # An @ after the ? may end a password that was not encoded.
            _check(_url_parameters(url), may_show_keys="@" not in url.partition("?")[2])
            return url
        case str() if "://" in given:
            raise ValueError("must begin with postgresql:// or postgres://")
        case str():
            _check(_pairs(given))
            return given
        case _:
            raise ValueError("must be a string")


def parameters(text: str) -> dict[str, str]:
    """Return the parameters of a checked string."""
    return dict(_url_parameters(text) if _SCHEME.match(text) else _pairs(text))


def secrets_in(text: str) -> set[str]:
    """Return the secrets of a checked string, both as written and decoded."""
    plain = {v for k, v in parameters(text).items() if k in SECRET_KEYWORDS and v}
    written = re.search(r"://[^/?#@]*?:([^@/?#]*)@", text)
    return plain | ({written[1]} if written and written[1] else set())


def _from_table(table: Mapping[str, Any]) -> str:
    pairs: dict[str, Any] = {}
    for key, value in table.items():
        if key in ("drivername", "query"):
            continue
        pairs[TABLE_KEYS.get(key, key)] = value
    pairs.update(_query(table.get("query", {})))
    _check(pairs.items(), may_show_keys=True)
    if not pairs.get("dbname"):
        raise ValueError("names no database")
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in pairs.items())


def _query(given: Any) -> Mapping[str, Any]:
    """Parse parameters beside dlt's own keys: a table, JSON, or as in a URL."""
    match given:
        case dict():
            return given
        case str() if _is_json(given):
            return _json_object(given, "has a query that is")
        case str():
            # Skipping a bad one might drop the sslmode.
            with suppress(ValueError):
                return dict(parse_qsl(given, keep_blank_values=True, strict_parsing=True))
    raise ValueError("has a query that is neither a table nor key=value pairs joined by &")


def _is_json(text: str) -> bool:
    return text.lstrip().startswith("{")


def _json_object(text: str, subject: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        raise ValueError(f"{subject} not a JSON object") from None
    return found


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _pairs(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is None:
            raise ValueError("is neither a postgresql:// URL nor libpq's key=value pairs")
        value = match[2][1:-1] if match[2].startswith("'") else match[2]
        found.append((match[1], re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL)))
        at = match.end()
    return found


def _url_parameters(url: str) -> list[tuple[str, str]]:
    rest = url.partition("://")[2]
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", rest):
        raise ValueError("has a % that begins no percent-encoded character (write %25 for %)")
    if "#" in rest or re.search(r"\s", rest):
        raise ValueError("has a character that must be percent-encoded (# is %23, a space %20)")
    head, _, query = rest.partition("?")
    authority, _, database = head.partition("/")
    if "@" in database or authority.count("@") > 1:
        raise ValueError(
            "has a user or password that must be percent-encoded (@ is %40, / is %2F, : is %3A)"
        )
    found = []
    userinfo, at, hosts = authority.rpartition("@")
    if at:
        user, colon, password = userinfo.partition(":")
        found += [("user", unquote(user))] if user else []
        found += [("password", unquote(password))] if colon else []
    names, ports = zip(*(_host_and_port(host) for host in hosts.split(",")), strict=True)
    found += [("host", ",".join(names))] if any(names) else []
    found += [("port", ",".join(ports))] if any(ports) else []
    found += [("dbname", unquote(database))] if database else []
    for pair in query.split("&") if query else ():
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise ValueError("has a query part that is not key=value pairs joined by &")
        found.append((unquote(key), unquote(value)))
    return found


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has an IPv6 address without its closing bracket")
        return host, rest[1:]
    host, _, port = text.partition(":")
    return unquote(host), port


def _check(pairs: Iterable[tuple[str, Any]], *, may_show_keys: bool = False) -> None:
    """`may_show_keys`: no key can be part of a password."""
    for key, value in pairs:
        if key not in KEYWORDS and key not in ("ssl", "requiressl"):
            near = get_close_matches(key, KEYWORDS, 1)
            if near:
                shown = f"{key!r}; did you mean {near[0]!r}?"
            else:
                shown = repr(key) if may_show_keys else "one that libpq does not know"
            raise ValueError(f"has an unknown parameter: {shown}")
        if not isinstance(value, str | int) or isinstance(value, bool):
            shown = f"has a value of {key} that is neither text nor a number"
            raise ValueError(shown)  # noqa: TRY004 - pydantic collects ValueErrors
        if "\0" in str(value):
            raise ValueError("holds a NUL character")
        match key:
            case "port":
                for port in str(value).split(","):
                    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
                        raise ValueError("has a port that is not a number from 1 to 65535")
            case "sslmode" if value not in SSL_MODES:
                raise ValueError(f"has an sslmode that is not one of {', '.join(SSL_MODES)}")
            case "connect_timeout" if not re.fullmatch(r"-?\d+", str(value)):
                raise ValueError("has a connect_timeout that is not a number of seconds")
            case "load_balance_hosts" if value != "disable":
                raise ValueError("must not set load_balance_hosts: all sessions need one server")
            case "replication":
                raise ValueError("must not set replication; that is ours to choose")
