"""Plan run: what the next run would do, and change nothing at either end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cdc_core.check.table_rules import publish_refusals, read_refusals
from cdc_core.full_load.start import FullLoadStart, unread_tables
from cdc_core.plan.definitions import HeldTables
from cdc_core.plan.plan import PlannedTable, Run, RunPlan
from cdc_core.plan.table_planner import TablePlanner
from cdc_core.plan.unpublished_catalog import UnpublishedCatalog
from cdc_core.tables.follow import follow_tables
from cdc_core.tables.renames import table_renames
from cdc_core.tables.selection import refused_tables, require_schemas
from cdc_core.tables.target_names import target_names
from cdc_core.values.checkpoint import TableStatus
from cdc_core.values.history import log_of, versions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cdc_core.plan.plan import Definition
    from cdc_core.ports.catalog import Catalog, SourceTable
    from cdc_core.ports.destination import Destination
    from cdc_core.ports.source_inspector import SourceFacts, SourceInspector
    from cdc_core.ports.source_monitor import SourceMonitor
    from cdc_core.tables.followed_tables import FollowedTables
    from cdc_core.values.checkpoint import Checkpoint, TableState


@dataclass(frozen=True)
class PlanRun:
    """Plans the snapshot before the first load and where changes are lost, else CDC.

    The decisions are those of the run itself: the same functions compare the tables. The plan does
    not read the WAL, so it does not know which tables have changes, nor what a change there may
    require.
    """

    monitor: SourceMonitor
    inspector: SourceInspector
    catalog: Catalog
    destination: Destination
    first_schema: str = "public"
    freeze_schema: bool = False

    def run(self) -> RunPlan:
        facts = self.inspector.facts()
        described = self.catalog.tables()
        refusals = publish_refusals(described, facts)
        catalog = UnpublishedCatalog(self.catalog, described, refusals)
        with self.monitor, self.destination:
            start = FullLoadStart.read(self.monitor, self.destination)
            plan = self._full_load if start.over else self._continued
            return plan(start, catalog, facts)

    def _full_load(
        self, start: FullLoadStart, catalog: UnpublishedCatalog, facts: SourceFacts
    ) -> RunPlan:
        """Plan a full load with a new slot."""
        states = start.checkpoint.tables if start.checkpoint else {}
        require_schemas(catalog.schemas_found(), states, catalog.names)
        found = catalog.publish()
        naming = self.destination.naming
        names = {table.relation.oid: table.relation.table for table in found}
        known = start.with_targets(self.first_schema, naming)
        targets = target_names(names, known, self.first_schema, naming)
        checkpoint = start.first_checkpoint(start.current, names)
        held = self._held(targets.values(), checkpoint.tables.values())
        renames = table_renames(checkpoint.tables, targets, self.destination.columns)
        renamed = list(held.rename(renames.possible))
        tables = self._planner(catalog, facts, held, renamed)
        refused = refused_tables(found, targets, known)
        planned = [
            tables.set_aside(table, targets[table.relation.oid], str(refused[table.relation.oid]))
            if table.relation.oid in refused
            else tables.read(
                table,
                targets[table.relation.oid],
                checkpoint.tables.get(table.relation.oid),
                "new slot" if start.checkpoint else "first load",
            )
            for table in found
        ]
        planned += tables.gone(checkpoint.tables, targets.values())
        why = "no snapshot was taken yet" if start.checkpoint is None else "cdc cannot continue"
        slot = f"replication slot {start.identity.slot_name}"
        at_source = [f"drop {slot}"] if start.slot is not None else []
        at_source.append(f"create {slot}")
        at_source += _publishing(found, catalog.described, facts)
        return self._plan(start, Run.SNAPSHOT, why, planned, at_source)

    def _continued(
        self, start: FullLoadStart, catalog: UnpublishedCatalog, facts: SourceFacts
    ) -> RunPlan:
        """Plan a run from the checkpoint: CDC, or the rest of an unfinished full load."""
        checkpoint = start.checkpoint
        assert checkpoint is not None
        unfinished = start.unfinished is not None
        before = replace(checkpoint, source=start.identity)
        followed = follow_tables(
            before if unfinished else replace(before, full_load=None),
            catalog,
            self.destination,
            first_schema=self.first_schema,
            position=self.monitor.current_lsn,
            until=start.current,
            freeze=self.freeze_schema and not unfinished,
            unread=unread_tables(checkpoint, catalog.publish()) if unfinished else None,
        )
        planned = self._followed(followed, before, catalog, facts)
        at_source = list(_publishing(followed.sources.values(), catalog.described, facts))
        confirmed = start.slot.confirmed_flush_lsn if start.slot else None
        wal = max(0, start.current - (confirmed or checkpoint.lsn))
        if unfinished:
            why = f"the snapshot that began at LSN {checkpoint.full_load} is not finished"
            return self._plan(start, Run.SNAPSHOT, why, planned, at_source, wal)
        why = f"the destination has a checkpoint at LSN {checkpoint.lsn}"
        return self._plan(start, Run.CDC, why, planned, at_source, wal)

    def _followed(
        self,
        followed: FollowedTables,
        before: Checkpoint,
        catalog: UnpublishedCatalog,
        facts: SourceFacts,
    ) -> list[PlannedTable]:
        """Plan each table as the run's comparison with the catalog found it."""
        states, targets = followed.checkpoint.tables, followed.targets
        known = before.tables
        load = followed.take_definitions()
        held = self._held(targets.values(), known.values())
        renamed = list(held.rename(load.steps if load else ()))
        evolved = {merge.target.name for merge in (load.merges if load else ())}
        tables = self._planner(catalog, facts, held, renamed)
        planned: list[PlannedTable] = []
        for oid, table in followed.sources.items():
            target, state = targets[oid], states.get(oid)
            if oid in followed.to_read:
                planned.append(tables.read(table, target, state, followed.to_read[oid]))
            elif oid in followed.set_aside or oid in followed.unpublished:
                why = followed.set_aside.get(oid) or str(followed.unpublished[oid])
                planned.append(tables.set_aside(table, target, why, state))
            elif state is not None and state.status is TableStatus.STREAMING:
                removal = followed.removals.get(oid)
                reason = "the rows of partitions that are gone are removed" if removal else ""
                changed = known[oid] if target in evolved else None
                planned.append(tables.stream(table, state, changed, reason))
            else:
                planned.append(tables.stay(table, target, table.not_streamed, state))
        return [*planned, *tables.gone(states, targets.values())]

    def _plan(
        self,
        start: FullLoadStart,
        run: Run,
        why: str,
        planned: Iterable[PlannedTable],
        at_source: Sequence[str],
        wal_bytes: int | None = None,
    ) -> RunPlan:
        return RunPlan(
            run=run,
            why=why,
            source=start.identity,
            slot=start.slot,
            checkpoint=start.checkpoint.lsn if start.checkpoint else None,
            current=start.current,
            problem=str(start.broken) if start.broken else "",
            at_source=tuple(at_source),
            tables=tuple(sorted(planned, key=lambda table: table.table)),
            passed_over=self.catalog.passed_over(),
            wal_bytes=wal_bytes,
        )

    def _held(self, targets: Iterable[str], known: Iterable[TableState]) -> HeldTables:
        """Return what the destination has of these tables, under their old and new names."""
        names = {*targets, *(state.target for state in known)}
        history = {name for target in names for name in (log_of(target), versions_of(target))}
        return HeldTables.of(self.destination.columns(names | history))

    def _planner(
        self,
        catalog: UnpublishedCatalog,
        facts: SourceFacts,
        held: HeldTables,
        renamed: Sequence[Definition],
    ) -> TablePlanner:
        refusals = read_refusals(catalog.described, facts)
        return TablePlanner(self.destination.column_type, facts.tables, refusals, held, renamed)


def _publishing(
    found: Iterable[SourceTable], now: Iterable[SourceTable], facts: SourceFacts
) -> Iterator[str]:
    """Yield what happens to the publication. `found` are the tables as publishing leaves them."""
    before = {table.relation.oid for table in now if table.published}
    added = [
        str(table.relation.table)
        for table in found
        if table.published and table.relation.oid not in before
    ]
    publication = facts.publication
    if not publication.exists:
        yield f"create publication {publication.name} for {len(added):,} tables"
    elif added:
        yield f"add to publication {publication.name}: {', '.join(added)}"
