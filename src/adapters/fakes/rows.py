"""Rows as plain dictionaries, and what makes two of them equal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]


def key_of(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(
        "NaN" if isinstance(v := row[name], float) and math.isnan(v) else v for name in names
    )


def content_of(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    """As a key, but -0.0 is another value than 0.0."""
    return tuple(repr(v) if isinstance(v := row[name], float) else v for name in names)


def marked(row: Row, names: Sequence[str]) -> list[str]:
    """Return the columns that a row's `_cdc_unchanged` lists."""
    return [names[int(place)] for place in (row["_cdc_unchanged"] or "").split(".") if place]
