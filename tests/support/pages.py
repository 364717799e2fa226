"""The code that the pages of the documentation show."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def queries(page: str) -> list[str]:
    """The SQL of a page, without statements that name their database."""
    return [query for query in _blocks(page, "sql") if not query.startswith("-- ")]


def python_of(page: str) -> str:
    """The one block of Python of a page."""
    (code,) = _blocks(page, "python")
    return code


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
