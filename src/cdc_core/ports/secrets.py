"""Where credentials come from."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    def get(self, key: str) -> str | None:
        """The secret's value, None if this store does not have it.

        `key` is a dotted path (`sources.pg_replication.credentials`). Raises `SettingsError` when
        the store refuses; a value appears in no message.
        """
        ...
