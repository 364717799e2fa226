"""What each mask makes of a value, in plain Python."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEY = b"mask key"


def hashed(value: object, key: bytes = KEY) -> str | None:
    return None if value is None else hmac.new(key, str(value).encode(), "sha256").hexdigest()


def starred(value: object) -> str | None:
    text = None if value is None else str(value)
    return text and ("*" * (len(text) - 4) + text[-4:] if len(text) > 4 else "*" * len(text))


MASKS: Mapping[str, Callable[[object], object]] = {
    "hash": hashed,
    "last4": starred,
    "null": lambda _: None,
}
