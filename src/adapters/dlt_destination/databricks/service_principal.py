"""The login of a service principal: tokens for its `client_id` and `client_secret`.

All sessions of a login share one token. A new one is fetched before it expires. The connector's own
login would lose the reason of a refusal. Source: Databricks documentation, "Authorize service
principal access to Databricks with OAuth", the token endpoint of a workspace.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

TIMEOUT_SECONDS = 60.0
#: How long before its end a token is replaced; a short-lived one after half its lifetime.
EARLY_SECONDS = 120.0


class LoginFailed(OSError):
    """The login failed. `retry` and `errors` parse the status and the reason from the text."""


@dataclass
class ServicePrincipal:
    """Logs in as a service principal. Thread-safe."""

    host: str
    client_id: str
    client_secret: str = field(repr=False)
    context: ssl.SSLContext = field(repr=False)
    _header: str = field(default="", repr=False)
    _replaced_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request. Raises `LoginFailed`."""
        with self._lock:
            now = time.monotonic()
            if now >= self._replaced_at:
                token = self._fetch()
                lifetime = float(token["expires_in"])
                self._replaced_at = now + lifetime - min(EARLY_SECONDS, lifetime / 2)
                self._header = f"Bearer {token['access_token']}"
            return {"Authorization": self._header}

    def _fetch(self) -> Mapping[str, str]:
        user = f"{quote(self.client_id, '')}:{quote(self.client_secret, '')}"
        request = urllib.request.Request(
            f"https://{self.host}/oidc/v1/token",
            data=urlencode({"grant_type": "client_credentials", "scope": "all-apis"}).encode(),
            headers={"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"},
        )
        try:
            with urllib.request.urlopen(  # noqa: S310 - https, as above
                request, timeout=TIMEOUT_SECONDS, context=self.context
            ) as response:
                answer: Mapping[str, str] = json.load(response)
        except urllib.error.HTTPError as error:
            raise LoginFailed(
                f"The login was answered with {error.code}: {_reason(error)}"
            ) from None
        except (OSError, ValueError) as error:
            raise LoginFailed(f"The login was not answered: {error}") from None
        return answer


def _reason(error: urllib.error.HTTPError) -> str:
    """Return the reason in the answer of OAuth, the workspace or a proxy."""
    text = error.read().decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    names = ("error", "error_description", "error_code", "message")
    return " ".join(str(answer[name]) for name in names if name in answer)
