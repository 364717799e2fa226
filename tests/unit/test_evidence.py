"""The page of evidence is fresh, complete, and names tests that exist."""

from __future__ import annotations

import pytest

from tests.support import evidence
from tests.support.hard_cases import CASES as HARD_CASES
from tests.support.type_matrix import CASES as TYPE_CASES


def test_the_page_is_what_the_tests_say() -> None:
    assert evidence.PAGE.read_text() == evidence.page(), "run: python -m tests.support.evidence"


@pytest.mark.parametrize("test", sorted(set(evidence.named_tests())))
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in evidence.functions(evidence.ROOT / path)


def test_every_type_of_the_matrix_has_its_row_and_every_row_its_types() -> None:
    listed = {name for _, names in evidence.TYPES.values() for name in names}
    assert listed == {case.declaration for case in TYPE_CASES}


def test_every_hard_case_has_tests() -> None:
    assert list(evidence.CASES) == list(range(1, 16))
    scripted = {case.number for case in HARD_CASES}
    for number, (title, tests) in evidence.CASES.items():
        assert number in scripted or tests, title
    assert scripted <= evidence.CASES.keys()
    assert len({case.title for case in HARD_CASES}) == len(HARD_CASES)


def test_every_claim_has_tests() -> None:
    guarantees = evidence.CLAIMS["Guarantees"]
    assert [claim[:2] for claim in guarantees] == [f"{number}." for number in range(1, 9)]
    assert all(tests for claims in evidence.CLAIMS.values() for tests in claims.values())
