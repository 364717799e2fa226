"""Findings: one result of `check`, with the statement or setting that fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """FAIL: a run would fail, or fail for some tables. WARN: it would work, with a difference."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of output. `cure` is a statement, a setting or a command; empty if all is well. With
    `table` the line is about a table without problems, and can be shown together with others."""

    level: Level
    subject: str
    sentence: str
    cure: str = ""
    table: bool = False


def ok(subject: str, sentence: str) -> Finding:
    return Finding(Level.OK, subject, sentence)


def fine_table(subject: str, sentence: str) -> Finding:
    return Finding(Level.OK, subject, sentence, table=True)


def warn(subject: str, sentence: str, cure: str = "") -> Finding:
    return Finding(Level.WARN, subject, sentence, cure)


def fail(subject: str, sentence: str, cure: str) -> Finding:
    return Finding(Level.FAIL, subject, sentence, cure)
