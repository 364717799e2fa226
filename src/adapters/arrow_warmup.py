"""Makes pyarrow's first array early, because pyarrow then imports pandas if it is installed.

That takes half a second. If a thread made the first array, other threads could see half-imported
modules.
"""

from __future__ import annotations

import sys

import pyarrow as pa


class _NoPandas:
    """A finder that hides pandas."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def warm_up_arrow(*, without_pandas: bool = False) -> None:
    """Make the first array now, before threads start.

    `without_pandas` skips the import. Use it only in a process of our own, because pandas is hidden
    from all threads for a moment. pyarrow imports it later to convert a table to a data frame.
    """
    if not without_pandas or "pandas" in sys.modules:
        pa.array([None])
        return
    hiding = _NoPandas()
    sys.meta_path.insert(0, hiding)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(hiding)
