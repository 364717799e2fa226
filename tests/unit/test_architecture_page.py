"""Every file and name on the architecture page exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`((?:src|tests)/[\w./]+)`", PAGE)))
#: A name, then the file that has it: "`fold` in `src/…`", or "`Part` (`src/…`)".
NAMED = re.findall(
    r"`([A-Za-z_]\w*(?:\.\w+)?)`(?:\s+in|\s+through \S+)?\s+\(?`(src/[\w./]+\.py)`", PAGE
)


def test_the_page_names_files_and_what_is_in_them():
    assert len(PATHS) > 25
    assert len(NAMED) > 12


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_named_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_a_name_is_in_its_file(name, path):
    source = (ROOT / path).read_text(encoding="utf-8")
    for part in name.split("."):
        assert re.search(rf"\b(?:class|def) {part}\b|^{part}\b", source, re.MULTILINE), part
