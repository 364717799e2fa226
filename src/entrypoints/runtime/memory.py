"""What a process that is ours alone does without: objects collected often, pandas, slow memory."""

from __future__ import annotations

import gc
from contextlib import suppress

#: New objects before the collector looks for cycles. Imports make some hundred thousands that stay,
#: and no row is an object, so that Python's own pace would be a quarter of a short run's work.
_COLLECT_EVERY = 100_000


def collect_rarely() -> None:
    """Call before the imports that are heavy."""
    _, *older = gc.get_threshold()
    gc.set_threshold(_COLLECT_EVERY, *older)


def prepare_arrow() -> None:
    """Have Arrow use jemalloc where its build has it, by a third faster with fresh memory, and give
    back at once what it frees: kept for a second, as is its way, it is more the longer a run takes.
    And not import pandas, of which nothing is used."""
    import pyarrow as pa

    from adapters.arrow_warmup import warm_up_arrow

    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(0)
    warm_up_arrow(without_pandas=True)
