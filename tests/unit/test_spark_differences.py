"""The page on Spark lists each difference because of which a test of the warehouse is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/spark.md").read_text()


def test_the_page_has_the_differences_of_the_tests_that_are_left_out() -> None:
    section = PAGE.partition("### Differences from a SQL warehouse")[2].partition("\n#")[0]
    told = re.findall(r"^\| ([A-Z][^|]+) \|", section, re.MULTILINE)
    marks = re.compile(r'\.needs_warehouse\(\s*"([^"]+)"')
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    assert {reason for text in tests for reason in marks.findall(text)} == {*told}
