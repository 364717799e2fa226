"""Log sequence numbers: positions in PostgreSQL's write-ahead log.

Source: PostgreSQL manual, "pg_lsn Type".
"""

from __future__ import annotations

from typing import Self


class Lsn(int):
    """A byte position in the WAL; ordered, and printed as PostgreSQL prints it
    (``16/B374D848``)."""

    __slots__ = ()

    def __new__(cls, value: int) -> Self:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"not an LSN: {value}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read PostgreSQL's form, two hexadecimal halves about a slash; `ValueError` otherwise."""
        high, slash, low = text.partition("/")
        if not (slash and 0 < len(high) <= 8 and 0 < len(low) <= 8):
            raise ValueError(f"not an LSN: {text!r}")
        return cls(int(high, 16) << 32 | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({str(self)!r})"


ZERO_LSN = Lsn(0)
