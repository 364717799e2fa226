"""Values of enums in the stream that the catalog's labels do not explain.

The stream sends a value as the name that its label had at that time. If no label has that name now,
or another label may have had it, then the source shows another text for these rows today.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import numpy.typing as npt

    from cdc_core.values.changes import TableChanges
    from cdc_core.values.fingerprint import Fingerprint, Label


def has_stray_label(changes: TableChanges, fingerprint: Fingerprint) -> bool:
    """Whether a value of an enum is not a label of `fingerprint`, or is in doubt."""
    enums = dict(fingerprint.enums)
    return any(
        _is_stray(
            changes.rows.column(column.name),
            changes.commit_lsn,
            [label for label in fingerprint.labels if label.enum == enums[column.type_oid]],
        )
        for column in changes.relation.columns
        if column.type_oid in enums and column.rule.is_read
    )


def _is_stray(
    values: pa.ChunkedArray, commit_lsn: npt.NDArray[np.uint64], labels: list[Label]
) -> bool:
    known = pa.array([label.text for label in labels], pa.string())
    stray = pc.and_(pc.is_valid(values), pc.invert(pc.is_in(values, known)))
    if pc.any(stray, min_count=0).as_py():
        return True
    return any(
        bool((np.asarray(pc.equal(values, label.text).fill_null(False)) & before).any())
        for label in labels
        if (before := commit_lsn <= np.uint64(label.doubted_until)).any()
    )
