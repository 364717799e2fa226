"""Tune a process that is ours alone: garbage collection, Arrow's memory pool, no pandas."""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import suppress

#: New objects before the collector searches for cycles. Imports create several hundred thousand
#: lasting objects, and rows are not objects. At Python's default a short run would spend a quarter
#: of its time collecting.
_COLLECT_EVERY = 100_000


def collect_rarely() -> None:
    """Call this before heavy imports."""
    _, *older = gc.get_threshold()
    gc.set_threshold(_COLLECT_EVERY, *older)


def peak_memory() -> int:
    """Return the most memory that this process has had, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def prepare_arrow() -> None:
    """Make Arrow use jemalloc if its build has it, which is a third faster with fresh memory, and
    return freed memory at once: with the default of one second a long run keeps growing. Keep Arrow
    from importing pandas, which is not used."""
    import pyarrow as pa

    from adapters.arrow_warmup import warm_up_arrow

    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(0)
    warm_up_arrow(without_pandas=True)
