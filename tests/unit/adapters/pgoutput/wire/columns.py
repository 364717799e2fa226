"""Text columns for tests: values apart in a buffer, as they lie on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adapters.pgoutput.wire.text import TextColumn

if TYPE_CHECKING:
    from collections.abc import Sequence


def text_column(values: Sequence[str | bytes | None]) -> TextColumn:
    buffer = bytearray()
    starts, ends, valid = [], [], []
    for value in values:
        buffer += b"t\0\0\0?"
        starts.append(len(buffer))
        if value is not None:
            buffer += value.encode() if isinstance(value, str) else value
        ends.append(len(buffer))
        valid.append(value is not None)
    return TextColumn(
        np.frombuffer(bytes(buffer), dtype=np.uint8),
        np.array(starts, dtype=np.int64),
        np.array(ends, dtype=np.int64),
        np.array(valid, dtype=np.bool_),
    )
