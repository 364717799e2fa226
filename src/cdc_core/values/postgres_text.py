"""A value as PostgreSQL's own text, as the output function of its type prints it.

Manual: "Floating-Point Types", "Date/Time Output" (ISO, in UTC), "bytea Hex Format". An array is
the JSON that the destination holds.
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from typing import Any


def postgres_text(scalar: pa.Scalar[Any]) -> str | None:
    """Return the text of a value; None for NULL."""
    match scalar.as_py():
        case None:
            return None
        case bool(value):
            return "t" if value else "f"
        case bytes(value):
            return f"\\x{value.hex()}"
        case float(value):
            return _float(value, single=pa.types.is_float32(scalar.type))
        case Decimal() as value:
            return format(value, "f")
        case datetime() as value:
            text = value.replace(tzinfo=None).isoformat(" ")
            text = text.rstrip("0") if value.microsecond else text
            return f"{text}+00" if value.tzinfo else text
        case value:
            return str(value)


def _float(value: float, *, single: bool) -> str:
    """Return the shortest digits that identify the value, as `float8out` and `float4out` do."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    number = np.float32(value) if single else np.float64(value)
    digits, _, exponent = np.format_float_scientific(number, trim="-").partition("e")
    if -4 <= int(exponent) < (6 if single else 15):
        return np.format_float_positional(number, trim="-")
    return f"{digits}e{int(exponent):+03d}"
