"""pyarrow imports pandas, where it is there, when it makes its first array.

That takes half a second; and if the first array is made in a thread, it happens beside whatever the
program does meanwhile, which then may meet modules that are half imported.
"""

from __future__ import annotations

import sys

import pyarrow as pa


class _NoPandas:
    """A finder that hides it."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def warm_up_arrow(*, without_pandas: bool = False) -> None:
    """Make it now, before there are threads.

    `without_pandas` is for a process that is ours alone: other threads would not find it in this
    moment. pyarrow looks for it again when a table is to become a data frame.
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
