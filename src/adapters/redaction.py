"""Removes known secrets from text before it is shown."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STRUCK_OUT = "***"

#: A token is used for one connection.
_MOST_TOKENS = 100


class Redactor:
    """Replaces known secrets in text by `STRUCK_OUT`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._tokens: deque[str] = deque(maxlen=_MOST_TOKENS)
        self._pattern: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        self._secrets |= {secret for secret in secrets if secret}
        self._compile()

    def add_token(self, token: str) -> None:
        """Add a secret that is soon replaced; of many, only the latest are kept."""
        if token and token not in self._tokens:
            self._tokens.append(token)
            self._compile()

    def _compile(self) -> None:
        # Longest first, so that a secret within another leaves nothing. A short one only as a word.
        parts = [
            re.escape(secret) if len(secret) > 3 else rf"(?<!\w){re.escape(secret)}(?!\w)"
            for secret in sorted({*self._secrets, *self._tokens}, key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join(parts)) if parts else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(STRUCK_OUT, text) if self._pattern else text
