"""The credentials of a source's sessions, and how they are replaced.

A password command runs for each connection. Without one, the connection string is used as it was
read, until PostgreSQL rejects it: then it is read again, because a secret may have been replaced
while the run goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import conninfo_to_dict

from adapters.pgoutput.session.password_command import password_of
from cdc_core.values.errors import CdcError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The setting for the connection string, for messages.
CREDENTIALS_KEY = "sources.pg_replication.credentials"

#: Values that no message may contain.
SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key")
#: What may be replaced during a run. Everything else says which server it is.
_REPLACEABLE = ("user", *SECRET_PARAMETERS)


class Login:
    """Connection parameters for the next session. Any thread may use it.

    - `conninfo` is libpq's, a URI or keywords.
    - `command` prints the password; empty: the one in `conninfo`.
    - `read_again` returns the connection string as the settings have it now.
    - `redact` is called with each new secret.
    """

    def __init__(
        self,
        conninfo: str,
        command: Sequence[str] = (),
        read_again: Callable[[], str] | None = None,
        redact: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._conninfo = conninfo
        self._command = tuple(command)
        self._read_again = read_again
        self._redact = redact

    def parameters(self) -> dict[str, str]:
        """libpq's parameters as given, including secrets. Runs the password command.

        Raises `SettingsError`.
        """
        given = _parsed(self._conninfo)
        if self._command:
            given["password"] = password_of(self._command, secrets_in(given))
            self._redact(given["password"])
        return given

    def renewed(self, rejected: dict[str, str]) -> bool:
        """Whether another attempt may succeed, after PostgreSQL rejected these parameters."""
        if self._command:
            return True
        if _parsed(self._conninfo) != rejected:
            return True  # another thread has read them again
        if self._read_again is None:
            return False
        try:
            again = self._read_again()
            given = _parsed(again)
        except CdcError:
            # That PostgreSQL rejects the login is the error to report.
            return False
        if given == rejected or _server(given) != _server(rejected):
            return False
        self._conninfo = again
        for secret in secrets_in(given):
            self._redact(secret)
        return True


def secrets_in(parameters: dict[str, str]) -> tuple[str, ...]:
    """Values that no message may contain."""
    return tuple(parameters[name] for name in SECRET_PARAMETERS if parameters.get(name))


def _parsed(conninfo: str) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except psycopg.Error:
        raise SettingsError(
            f"{CREDENTIALS_KEY} is not a connection string",
            "write postgresql://user:password@host:5432/database, special characters as %XX",
        ) from None


def _server(parameters: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if name not in _REPLACEABLE}
