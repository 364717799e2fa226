"""Which allocator holds the rows of a process that is ours alone."""

from __future__ import annotations

from contextlib import suppress


def choose_allocator() -> None:
    """Have Arrow use jemalloc where its build has it: by a third faster with fresh memory."""
    import pyarrow as pa

    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
