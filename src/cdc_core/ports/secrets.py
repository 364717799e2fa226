"""Where credentials come from."""

from __future__ import annotations

from typing import Protocol


class Secrets(Protocol):
    def get(self, key: str) -> str | None:
        """The secret's value, None if this store is not where it is kept.

        `key` is a dotted path (`sources.pg_replication.credentials`). Raises `SettingsError` when
        the store refuses, or should have it and does not; a value appears in no message and in no
        `repr`.
        """
        ...
