"""A partition's bounds, parsed from PostgreSQL's text.

Manual: "CREATE TABLE", FOR VALUES; `pg_class.relpartbound`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cdc_core.values.partition_bounds import Bound

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A constant as printed in bounds, except texts with a backslash (E'…').
_CONSTANT = r"(?:'(?:[^']|'')*'|-?[0-9.]+)"
_LIMIT = rf"({_CONSTANT}|MINVALUE|MAXVALUE)"
_RANGE = re.compile(rf"FOR VALUES FROM \({_LIMIT}\) TO \({_LIMIT}\)")
_LIST = re.compile(rf"FOR VALUES IN \(({_CONSTANT}(?:, {_CONSTANT})*)\)")


def partition_bounds(levels: Sequence[str | None]) -> tuple[Bound, ...]:
    """Parses `<column number> FOR VALUES …` of each level. Empty if one cannot be parsed."""
    found = []
    for level in levels:
        number, _, text = (level or "").partition(" ")
        if match := _RANGE.fullmatch(text):
            low, high = map(_constant, match.groups())
            found.append(Bound(int(number), None, low, high))
        elif match := _LIST.fullmatch(text):
            values = re.findall(_CONSTANT, match[1])
            found.append(Bound(int(number), tuple(str(_constant(value)) for value in values)))
        else:
            return ()
    return tuple(found)


def _constant(text: str) -> str | None:
    if text in ("MINVALUE", "MAXVALUE"):
        return None
    return text[1:-1].replace("''", "'") if text[0] == "'" else text
