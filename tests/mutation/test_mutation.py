"""The unit tests notice mutants of the rules: the stored scores, and a sample of what has changed
since they were measured."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.mutation.mutants import functions, mutants
from tests.mutation.score import EXPLAINED, FILES, ROOT, score

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("file", FILES)
def test_the_score_is_high_enough(file: str) -> None:
    """Measured by `python -m tests.mutation`."""
    found = score(file)
    assert found.mutants, "run: python -m tests.mutation"
    assert found.percent >= FILES[file][1], found.survivors


@pytest.mark.parametrize("file", EXPLAINED)
def test_every_mutant_that_is_not_noticed_is_explained(file: str) -> None:
    assert [survivor for survivor, why in score(file).survivors.items() if not why] == []


def test_tests_notice_mutants_of_what_has_changed_since() -> None:
    command = [sys.executable, "-m", "tests.mutation", "--sample", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mutant_differs_from_its_source_in_one_place(tmp_path: Path) -> None:
    file = tmp_path / "rule.py"
    file.write_text(
        "def rule(a: int, b: int = 3) -> bool:\n"
        '    """Say so."""\n'
        "    if a < b and not a == 7:\n"
        "        return a + 1 > b\n"
        "    return False\n"
    )
    (function,) = functions(file)
    changes = [mutant.change for mutant in mutants(file, function)]
    assert len(changes) == len({*changes}) == 12
    assert "`Lt` becomes `LtE` in `if a < b and not a == 7:`" in changes
    commented = file.read_text().replace("    if", "    # Why.\n    if").replace("Say so", "Say")
    file.write_text(commented)
    assert functions(file)[0].hash == function.hash
