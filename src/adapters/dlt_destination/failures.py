"""What went wrong underneath, said in one line that no row's value can be in."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`", re.DOTALL)
_UNCLOSED = re.compile(r"['\"`].*", re.DOTALL)
_NUMBER = re.compile(r"\d+")
_LONGEST = 200

#: Attributes under which dlt's exceptions keep what they wrap.
_INNER = (
    "exception",
    "client_exception",
    "job_exception",
    "dbapi_exception",
    "inner_exc",
    "__cause__",
)


def root_cause(error: BaseException) -> BaseException:
    """The innermost exception of dlt's wrappers."""
    seen = {id(error)}
    while True:
        inner = next(
            (
                found
                for name in _INNER
                if isinstance(found := getattr(error, name, None), BaseException)
                and id(found) not in seen
            ),
            None,
        )
        if inner is None:
            return error
        seen.add(id(inner))
        error = inner


def scrubbed(error: BaseException) -> str:
    """The error's kind and first line; what is quoted and every number is masked."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    text = _UNCLOSED.sub("…", _QUOTED.sub("…", text))
    text = _NUMBER.sub("…", text)[:_LONGEST].strip()
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind
