"""What went wrong underneath, said in one line that no row's value can be in."""

from __future__ import annotations

import re

#: A value may have quotes in it, so all between the first and the last may be one.
_QUOTED = re.compile(r"['\"`].*['\"`]", re.DOTALL)
_UNCLOSED = re.compile(r"['\"`].*", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_LONGEST = 200


def is_failure(error: BaseException) -> bool:
    """Whether something went wrong, a panic of a library in Rust included, which is no `Exception`:
    not that the run was interrupted."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def scrubbed(error: BaseException) -> str:
    """The error's kind and first line; what is quoted and every number is masked."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = _UNCLOSED.sub("…", _QUOTED.sub("…", text))
    text = _NUMBER.sub("…", text)[:_LONGEST].strip()
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind
