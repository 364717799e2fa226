"""Rules for the tables of a simulation, and what a plain reference makes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdc_core.tables.table_rules import RuleSet
from cdc_core.values.history import log_of, versions_of
from cdc_core.values.masks import Hasher
from cdc_core.values.table_rules import Rule
from tests.support.history_model import as_of, assert_chained, images_of
from tests.support.mask_model import KEY, MASKS
from tests.support.soft_delete_model import METADATA, SoftDeletes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from adapters.fakes import Lake
    from adapters.fakes.postgres import Row, Table
    from cdc_core.values.checkpoint import TableState
    from tests.simulation.application import RecordedPostgres

#: Tables without a key have this name, if tables of all others have rules that need one.
HEAP = "events"
_KEYED = tuple(f"public.{name}" for name in ("orders", "items", "notes", "stock"))
_MASKS: Mapping[str, str] = {"n": "hash", "big": "last4"}


@dataclass(frozen=True)
class Rules:
    """Rules of a whole simulation.

    `keys` says which tables have a key: of any name as it comes (None), all, or all but `HEAP`.
    """

    name: str = ""
    rules: RuleSet = field(default_factory=RuleSet)
    keys: str | None = None
    log: bool = False
    masks: Mapping[str, str] = field(default_factory=dict)

    def shown(self, table: str, row: Row) -> Row:
        """The values that the destination has of a row."""
        if table == HEAP or not self.masks:
            return row
        return {n: MASKS[self.masks[n]](v) if n in self.masks else v for n, v in row.items()}


PLAIN = Rules()
LOG = Rules("history", RuleSet((Rule(("public.*",), history=("log",)),)), log=True)
SOFT = Rules("soft deletes", RuleSet((Rule(("public.*",), deletes="soft"),)), keys="all")
ALL_RULES = Rules(
    "history, soft deletes and masks",
    RuleSet(
        (
            Rule(("public.*",), history=("log",)),
            Rule(_KEYED, history=("log", "scd2"), deletes="soft", mask=_MASKS),  # type: ignore[arg-type]
        ),
        Hasher(KEY),
    ),
    keys=f"all but {HEAP}",
    log=True,
    masks=_MASKS,
)


def live(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("_cdc_deleted_at") is None]


@dataclass(frozen=True)
class Reference:
    """What the tables, their marked rows and their history must be. Raises `AssertionError`."""

    rules: Rules
    postgres: RecordedPostgres
    lake: Lake

    def check(self, states: Mapping[int, TableState], until: int) -> None:
        """Check every table whose definition never changed. All changes up to `until` are
        applied."""
        for oid, table in self.postgres.tables.items():
            state = states[oid]
            if self.rules.log:
                self._history_leads_to_the_table(state)
            if oid in self.postgres.redefined_at:
                continue
            if state.soft_deletes:
                self._marks(table, state, until)
            if state.versions is not None:
                self._versions(table, state, until)

    def _history_leads_to_the_table(self, state: TableState) -> None:
        """Each image fits the one before it, and the last ones are the table's live rows."""
        table = self.lake.tables[state.target]
        log = self.lake.tables.get(log_of(state.target))
        columns = [name for name in table.columns if not name.startswith("_cdc")]
        rows = Counter(tuple(row[name] for name in columns) for row in live(table.rows))
        found = [{**dict.fromkeys(columns), **image} for image in (log.rows if log else ())]
        images, read_at = images_of(found, columns), int(state.snapshot_lsn)
        left = assert_chained(images, columns, state.target_key, read_at)
        assert left == rows, f"{log_of(state.target)} leads to other rows"

    def _marks(self, table: Table, state: TableState, until: int) -> None:
        """Since the table was last read, every row that there was has its last values, and a
        deleted one the moment of its delete."""
        name, read = table.relation.table.name, int(state.snapshot_lsn)
        key, columns = table.relation.key, table.relation.column_names
        oid = table.relation.oid
        model = SoftDeletes(key, self.postgres.seen[state.snapshot_lsn][oid], read, 0)
        for transaction in self.postgres.wal:
            if transaction.commit_lsn > read and transaction.end_lsn <= until:
                model.apply(transaction, oid)
        held = {tuple(row[k] for k in key): row for row in self.lake.tables[state.target].rows}
        for identity, row in model.rows.items():
            assert identity in held, f"{name}: no row {identity}"
            found, wanted = held.pop(identity), self.rules.shown(name, row)
            # A row that has not changed since may be older than the snapshot.
            stamps = METADATA if row["_cdc_lsn"] > read else METADATA[2:]
            differing = [n for n in (*columns, *stamps) if found[n] != wanted[n]]
            assert not differing, f"{name}: row {identity} differs in {differing}"
        for identity, row in held.items():
            assert row["_cdc_deleted_at"] is not None, f"{name}: row {identity} is not deleted"
            assert row["_cdc_lsn"] <= read, f"{name}: row {identity} never was"

    def _versions(self, table: Table, state: TableState, until: int) -> None:
        """Since the table was last read, the versions are the table at every commit."""
        name, columns = table.relation.table.name, table.relation.column_names
        versions = self.lake.tables[versions_of(state.target)].rows
        for transaction in self.postgres.wal:
            lsn = int(transaction.commit_lsn)
            if not state.snapshot_lsn < lsn <= until:
                continue
            rows = self.postgres.at(int(transaction.end_lsn)).get(table.relation.oid, [])
            shown = (self.rules.shown(name, row) for row in rows)
            wanted: Counter[tuple[Any, ...]] = Counter(tuple(r[n] for n in columns) for r in shown)
            assert as_of(versions, lsn, columns) == wanted, f"{name}: other versions at {lsn}"
