"""Describe an error of a library in one line without any value of a row."""

from __future__ import annotations

import re

#: A value can contain quotes, so everything between the first and the last quote can be one value.
_QUOTED = re.compile(r"['\"`].*['\"`]", re.DOTALL)
_UNCLOSED = re.compile(r"['\"`].*", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_LONGEST = 200


def is_failure(error: BaseException) -> bool:
    """Whether something went wrong, as opposed to an interrupted run. A panic of a Rust library
    counts, although it is not an `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def scrubbed(error: BaseException) -> str:
    """Return the error's class and its first line, with quoted text and numbers masked."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = _UNCLOSED.sub("…", _QUOTED.sub("…", text))
    text = _NUMBER.sub("…", text)[:_LONGEST].strip()
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind
