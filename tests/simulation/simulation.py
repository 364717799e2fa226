"""One seed: a source, a destination, a clock, and everything that can go wrong, in one order.

The seed decides all of it. Nothing runs in parallel: what happens at the same time as a run happens
at one of its port calls.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters.fakes import (
    InjectedCrash,
    InMemoryDestination,
    InMemorySource,
    Lake,
    ManualClock,
)
from cdc_core.fold import multi_part_batch
from cdc_core.full_load import read_tables
from cdc_core.ports.progress import BatchLoaded, Note, Warned
from cdc_core.slot.continuity import confirmable
from cdc_core.tables.catalog_with_rules import CatalogWithRules
from cdc_core.use_cases.stream_changes import StreamChanges
from cdc_core.use_cases.take_snapshot import TakeSnapshot
from cdc_core.use_cases.verify_parity import VerifyParity
from cdc_core.values.checkpoint import Checkpoint, TableStatus
from cdc_core.values.errors import (
    CdcError,
    ContinuityLost,
    OperatorNeeded,
    TablesNeedSnapshot,
    TablesRefused,
    WriterBusy,
)
from cdc_core.values.history import log_of, versions_of
from cdc_core.values.lsn import Lsn
from tests.simulation.application import Application, RecordedPostgres
from tests.simulation.faults import CALM, Odds, UnreliableDestination, Weather, apply_again
from tests.simulation.ruled_tables import ALL_RULES, LOG, PLAIN, SOFT, Reference, live
from tests.support.fake_world import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from adapters.fakes.postgres import Row
    from cdc_core.ports.progress import Event
    from cdc_core.values.checkpoint import TableState
    from cdc_core.values.merges import LoadBatch


class SimulationFailed(AssertionError):
    """An invariant does not hold."""


#: The rules that a simulation can have, and how often.
RULES = ((PLAIN, 50), (LOG, 20), (SOFT, 15), (ALL_RULES, 15))

#: How a slot can be out of step, with the situation that its refusal is.
DROPPED = "the slot was dropped: refused"
AHEAD = "the slot is past the checkpoint: refused"
RESTORED = "the source was restored from a backup: refused"


@dataclass
class Simulation:
    seed: int
    story: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    runs: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.postgres, self.lake, self.clock = RecordedPostgres(), Lake(), ManualClock()
        self.application = Application(self.postgres, self.random, self.say, self.reach)
        self.left_behind: list[LoadBatch] = []
        self.rules = PLAIN
        #: Why the stream cannot go on, until a snapshot is taken.
        self.broken: str | None = None
        #: Tables whose rows at the destination somebody else has changed.
        self.damaged: set[int] = set()
        #: Whether somebody has ever changed something at the destination.
        self.harmed = False
        self.repair_cut_short = False
        self._seen: dict[str, int] = {}
        #: Below this position changes are applied again after a run that failed.
        self.replayed_until = 0

    # The story.

    def say(self, line: str) -> None:
        self.story.append(line)

    def reach(self, situation: str) -> None:
        self.reached[situation] += 1

    # The whole of it.

    def run(self) -> None:
        """Raises `SimulationFailed`, or what a use case raised that it must not raise."""
        with _small_limits(self.random):
            self.batch_transactions = self.random.choice([1, 2, 3, 1000])
            self.part_events = self.random.choice([None, None, 1, 2, 3])
            self.range_rows = self.random.choice([None, 1, 2])
            rules, weights = zip(*RULES, strict=True)
            (self.rules,) = self.random.choices(rules, weights)
            self.say(f"rules: {self.rules.name or 'none'}")
            self.application.keys = self.rules.keys
            self.application.changes_definitions = not self.rules.masks
            self.application.begin()
            for _ in range(self.random.randint(4, 8)):
                self._step()
            self._end()

    def _step(self) -> None:
        steps: list[tuple[float, Callable[[], Any]]] = [
            (5, lambda: self.application.work(self.random.randint(1, 4))),
            (2, self.application.redefine),
            (6, self.cdc),
            (2, self.follow),
            (3, self.snapshot),
            (1, self.snapshot_some),
            (1, self.repair),
            (1, self._large_table),
            (1, self._out_of_step),
            (0.5, self._foreign_reader),
            (1, self._damage),
        ]
        if self.lake.checkpoint is None:
            steps = [(3, self.snapshot), (1, lambda: self.application.work(2))]
        weights = [weight for weight, _ in steps]
        self.random.choices([step for _, step in steps], weights)[0]()

    def _end(self) -> None:
        """Nothing fails any more; a person does what each error says."""
        self.say("from here on nothing fails")
        self._late_statements()
        self._cure()
        self._assert_equal("after the cure")
        self.application.work(3)
        self.cdc(CALM)
        self._assert_equal("after one more cdc")
        if self.lake.written:
            raise SimulationFailed(f"rows are kept for ever: {sorted(self.lake.written)}")

    def _cure(self) -> None:
        for _ in range(8):
            error = self.cdc(CALM)
            match error:
                case None:
                    break
                case TablesNeedSnapshot():
                    self.snapshot(CALM, *error.tables)
                case OperatorNeeded():
                    self.snapshot(CALM)
                case _:
                    raise SimulationFailed(f"a calm run fails: {error}") from error
        else:
            raise SimulationFailed("running again does not cure it")
        if self.damaged:
            self.repair(CALM)
            self.cdc(CALM)

    # Runs.

    def cdc(self, odds: Odds | None = None) -> CdcError | None:
        def act(source: InMemorySource, destination: Any) -> None:
            until = int(self.postgres.lsn)
            report = self._stream(source, destination).run()
            self._note_stream(report, was, until)

        was = self._checkpoint()
        return self._run("cdc", act, odds)

    def follow(self, odds: Odds | None = None) -> CdcError | None:
        left = self.random.randint(2, 12)

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        def act(source: InMemorySource, destination: Any) -> None:
            self._stream(source, destination).run(follow=True, stop=stop)
            self.reach("a run that follows is stopped and has loaded all")

        return self._run("cdc --follow", act, odds)

    def snapshot(self, odds: Odds | None = None, *globs: str) -> CdcError | None:
        def act(source: InMemorySource, destination: Any) -> None:
            report = TakeSnapshot(
                source, self._catalog(source), source, destination, progress=self._progress()
            ).run(globs)
            if report.kept:
                self.reach("a full load goes on where a dead run left it")

        was = self.lake.checkpoint
        error = self._run(f"snapshot {' '.join(globs)}".strip(), act, odds)
        if self.lake.checkpoint != was and not globs:
            self.broken = None  # a checkpoint of the new slot
        return error

    def snapshot_some(self) -> None:
        names = sorted(str(table.relation.table) for table in self.postgres.tables.values())
        if names and self.broken is None:
            self.snapshot(None, *self.random.sample(names, 1))

    def _large_table(self) -> None:
        """A full load by page ranges dies, and the next run keeps what it has read."""
        usual, self.range_rows = self.range_rows, 1
        self.snapshot(Odds(kill=0.05))
        self.application.work(1)
        (self.snapshot if self.random.random() < 0.7 else self.cdc)(Odds(fault=0.1))
        self.range_rows = usual

    def repair(self, odds: Odds | None = None) -> CdcError | None:
        def act(source: InMemorySource, destination: Any) -> None:
            differing = self._differences()
            report = VerifyParity(
                source, self._catalog(source), source, destination, progress=self._progress()
            ).run(repair=True)
            weather: Weather = destination.weather
            if self._settled() and not (weather.faults or weather.commits or weather.definitions):
                found = {line.target for line in report.tables if line.differing}
                if found != differing.keys():
                    raise SimulationFailed(f"verify finds {found}, differing: {differing}")
                if not all(line.equal for line in report.tables):
                    raise SimulationFailed(f"a repair does not hold: {report.tables}")
                if found and self.damaged:
                    self.reach("rows lost at the destination are found and repaired")
                self.damaged.clear()

        error = self._run("verify --repair", act, odds)
        checkpoint = self._checkpoint()
        self.repair_cut_short |= checkpoint is not None and any(
            state.reason == "a repair was cut short" for state in checkpoint.tables.values()
        )
        return error

    def _run(
        self, name: str, act: Callable[[InMemorySource, Any], None], odds: Odds | None
    ) -> CdcError | None:
        self.runs += 1
        self._late_statements()
        weather = self._weather(odds or self._odds())
        self.say(f"run {self.runs}: {name} [{self.postgres.lsn}]")
        source = InMemorySource(
            self.postgres,
            faults=weather,
            batch_transactions=self.batch_transactions,
            part_events=self.part_events,
            chunk_rows=2,
            range_rows=self.range_rows,
        )
        inner = InMemoryDestination(self.lake, weather)
        destination = UnreliableDestination(inner, self.lake, weather, self.left_behind)
        unbroken = self.broken is None and self.postgres.reader is None
        try:
            act(source, destination)
        except InjectedCrash:
            self.say("  the run is dead")
            self.postgres.writer = None
            self.replayed_until = int(self.postgres.lsn)
            return None
        except CdcError as error:
            self.replayed_until = int(self.postgres.lsn)
            self.say(f"  ends: {type(error).__name__}: {error}")
            self._judge(error, weather, unbroken=unbroken)
            return error
        if not unbroken and not name.startswith("snapshot"):
            raise SimulationFailed(f"{name} does not refuse: {self.broken or 'slot in use'}")
        self.say(f"  ends well, checkpoint {self._position()}, slot {self.postgres.slot}")
        return None

    def _judge(self, error: CdcError, weather: Weather, *, unbroken: bool) -> None:
        """A run may fail only for a reason."""
        if isinstance(error, ContinuityLost) and self.broken:
            self.reach(self.broken)
        elif isinstance(error, WriterBusy) and self.postgres.reader is not None:
            self.reach("another process reads the slot: refused")
        elif isinstance(error, TablesNeedSnapshot | TablesRefused):
            self.reach("a table is set aside, the others go on")
        calm = not weather.faults and not weather.definitions
        if calm and unbroken and self.lake.checkpoint is not None:
            raise SimulationFailed(f"a run fails without a reason: {error}") from error
        if isinstance(error, ContinuityLost) and unbroken:
            raise SimulationFailed(f"continuity is not lost: {error}") from error

    def _stream(self, source: InMemorySource, destination: Any) -> StreamChanges:
        return StreamChanges(
            source, self._catalog(source), source, destination,
            clock=SimulatedClock(self.clock, self._while_sleeping),
            progress=self._progress(),
        )  # fmt: skip

    def _while_sleeping(self, seconds: float) -> None:
        if self.random.random() < 0.4:
            self.application.work(1)
        elif self.random.random() < 0.3:
            self.clock.pass_time(seconds * 100)

    def _note_stream(self, report: Any, was: Checkpoint | None, until: int) -> None:
        """A `cdc` has ended well: it keeps what it promises."""
        now = self._checkpoint()
        assert was is not None
        assert now is not None
        if now.lsn < until and any(
            int(t.end_lsn) > now.lsn and self._concerns(t, now) for t in self.postgres.wal
            if int(t.end_lsn) <= until
        ):  # fmt: skip
            raise SimulationFailed(f"cdc ends at {now.lsn}, before {Lsn(until)}")
        if report.tables_read and report.transactions:
            again = [s for s in now.tables.values() if s.oid in was.tables]
            if any(s.snapshot_lsn > was.tables[s.oid].snapshot_lsn for s in again):
                self.reach("a table is read again while others are streamed")
            if now.tables.keys() - was.tables.keys():
                self.reach("a new table is read while others are streamed")
        if not report.batches and not report.tables_read and now.lsn > was.lsn:
            self.reach("an idle position is made durable")
        if self.repair_cut_short:
            self.repair_cut_short = False
            self.reach("a repair that was cut short is completed by cdc")
        self._assert_calm_tables_at(now, until)

    def _concerns(self, transaction: Any, checkpoint: Checkpoint) -> bool:
        return any(event.oid in checkpoint.tables for event in transaction.events)

    # What others do.

    def _late_statements(self) -> None:
        """What dead runs had sent is applied now, or never: the next run removes its files."""
        for sent in self.left_behind:
            if self.random.random() < 0.6 and apply_again(self.lake, sent):
                self.say("  a statement of a dead run is applied")
                self.reach("a statement of a dead run is applied after its death")
        self.left_behind.clear()

    def _out_of_step(self) -> None:
        """The slot is no longer where the checkpoint left it."""
        slot, checkpoint = self.postgres.slot, self._checkpoint()
        if slot is None or checkpoint is None or self.broken:
            return
        match self.random.randrange(4):
            case 0:
                self.postgres.slot = None
                self.broken = DROPPED
            case 1:
                self.application.work(2)
                self.postgres.slot = self.postgres.write_wal()
                self.broken = AHEAD
            case 2:
                self.replayed_until = int(self.postgres.lsn)
                # PostgreSQL has crashed before it wrote the slot's position to disk.
                back = [t.end_lsn for t in self.postgres.wal if t.end_lsn < slot][-3:]
                if back:
                    self.postgres.slot = back[0]
                    self.reach("the slot is behind the checkpoint, changes are read again")
            case 3:
                # Another server with the same history, which ends before the checkpoint.
                if any(t.end_lsn >= checkpoint.lsn for t in self.postgres.wal):
                    return
                self.postgres.left = {self.postgres.timeline: Lsn(checkpoint.lsn - 1)}
                self.postgres.timeline += 1
                self.broken = RESTORED
        self.say(f"slot: {self.broken or 'set back'}, now {self.postgres.slot}")

    def _foreign_reader(self) -> None:
        self.postgres.reader = "another process"
        self.cdc()
        self.postgres.reader = None

    def _damage(self) -> None:
        held = [name for name, table in self.lake.tables.items() if table.rows and _is_own(name)]
        if not held:
            return
        self.harmed = True
        name = self.random.choice(sorted(held))
        if self.random.random() < 0.4:
            del self.lake.tables[name]
            self.say(f"somebody drops table {name} at the destination")
            self._lost(name)
        else:
            rows = self.lake.tables[name].rows
            rows.remove(self.random.choice(rows))
            self.damaged |= {oid for oid, state in self._states().items() if state.target == name}
            self.say(f"somebody deletes a row of {name} at the destination")

    def _lost(self, name: str) -> None:
        checkpoint = self._checkpoint()
        assert checkpoint is not None
        state = next((s for s in checkpoint.tables.values() if s.target == name), None)
        if state is None or state.oid not in self.postgres.tables:
            return
        before = state.snapshot_lsn
        if self.cdc() is None and self.broken is None:
            now = self._checkpoint()
            assert now is not None
            if state.oid in now.tables and now.tables[state.oid].snapshot_lsn > before:
                self.reach("a table lost at the destination is read again")

    def _second_run(self) -> None:
        """Another run of the same pipeline starts now; it must end at once and change nothing."""
        before = self.lake.checkpoint, self.postgres.slot
        source = InMemorySource(self.postgres)
        destination = InMemoryDestination(self.lake)
        try:
            StreamChanges(source, source, source, destination).run()
        except WriterBusy:
            self.reach("a second run ends at once, naming the first")
        else:
            raise SimulationFailed("two runs write at the same time")
        if before != (self.lake.checkpoint, self.postgres.slot):
            raise SimulationFailed("a run that was refused has changed something")

    # Weather.

    def _odds(self) -> Odds:
        chance = self.random
        return Odds(
            fault=chance.choice([0, 0, 0.03, 0.1, 0.3]),
            kill=chance.choice([0, 0, 0.01, 0.03]),
            commits=chance.choice([0, 0, 0.1, 0.3]),
            definition=chance.choice([0, 0, 0.02, 0.06]),
            second_run=chance.choice([0, 0.03]),
        )

    def _weather(self, odds: Odds) -> Weather:
        return Weather(
            random=self.random,
            odds=odds,
            say=self.say,
            reach=self.reach,
            watch=self._watch,
            commit=lambda: self.application.work(1),
            redefine=self.application.redefine,
            second_run=self._second_run,
            wait=self.clock.pass_time,
        )

    def _catalog(self, source: InMemorySource) -> CatalogWithRules:
        return CatalogWithRules(source, self.rules.rules)

    def _progress(self) -> Listener:
        return Listener(self)

    # Invariants.

    def _checkpoint(self) -> Checkpoint | None:
        state = self.lake.checkpoint
        return Checkpoint.from_state(state) if state else None

    def _states(self) -> Mapping[int, TableState]:
        checkpoint = self._checkpoint()
        return checkpoint.tables if checkpoint else {}

    def _position(self) -> str:
        return str((self.lake.checkpoint or {}).get("lsn"))

    def _watch(self, call: str) -> None:
        """At every call: the slot follows the data, and readers see whole rows, each key once."""
        if call == "source.confirm.done":
            checkpoint = self._checkpoint()
            assert checkpoint is not None
            if self.postgres.slot is None or self.postgres.slot > confirmable(checkpoint):
                raise SimulationFailed(
                    f"the slot is at {self.postgres.slot}, the checkpoint at {checkpoint.lsn}"
                )
        if call.startswith("destination."):
            self._assert_rows_were_committed()

    def _assert_rows_were_committed(self) -> None:
        """Every row of a table whose definition never changed is one that a commit made visible.

        While changes are applied again this does not hold: a row that is deleted later may return
        for a moment, without values that the source did not send.
        """
        checkpoint = self._checkpoint()
        if checkpoint is None or checkpoint.lsn < self.replayed_until:
            return
        for oid, table in self.postgres.tables.items():
            name = table.relation.table.name
            held = self.lake.tables.get(name)
            if held is None or oid in self.postgres.redefined_at or oid in self.damaged:
                continue
            if self._seen.get(name) == id(held.rows) or not self._is_target(oid, name):
                continue
            self._seen[name] = id(held.rows)
            columns = table.relation.column_names
            seen = live(held.rows)
            rows = [row_of({column: row.get(column) for column in columns}) for row in seen]
            committed = self._shown(name, map(dict, self.postgres.versions[oid]))
            for row in rows:
                if row not in committed:
                    raise SimulationFailed(f"a reader of {name} sees {dict(row)}: never committed")
            key = table.relation.key
            keys = Counter(tuple(row[k] for k in key) for row in held.rows) if key else Counter()
            if any(count > 1 for count in keys.values()):
                raise SimulationFailed(f"a reader of {name} sees a key twice: {keys}")

    def _shown(self, table: str, rows: Iterable[Row]) -> Counter[tuple[Any, ...]]:
        """What the destination has of rows of the source."""
        return Counter(row_of(self.rules.shown(table, row)) for row in rows)

    def _is_target(self, oid: int, name: str) -> bool:
        checkpoint = self._checkpoint()
        state = checkpoint.tables.get(oid) if checkpoint else None
        return state is not None and state.target == name

    def _settled(self) -> bool:
        """Whether the checkpoint describes every table as it is."""
        checkpoint = self._checkpoint()
        if checkpoint is None:
            return False
        states = checkpoint.tables
        return all(
            oid in states
            and states[oid].status is TableStatus.STREAMING
            and states[oid].fingerprint == self.postgres.fingerprint(oid)
            and states[oid].table == table.relation.table
            and states[oid].target in self.lake.tables
            for oid, table in self.postgres.tables.items()
        )

    def _differences(self) -> dict[str, str]:
        """Target tables that differ from the source now, with a sentence."""
        checkpoint = self._checkpoint()
        assert checkpoint is not None
        now = {oid: table.rows for oid, table in self.postgres.tables.items()}
        return dict(self._compare(checkpoint, now))

    def _compare(
        self, checkpoint: Checkpoint, source: dict[int, list[dict[str, Any]]]
    ) -> Iterator[tuple[str, str]]:
        for oid, rows in source.items():
            name = self.postgres.tables[oid].relation.table.name
            state = checkpoint.tables.get(oid)
            if state is None or state.target not in self.lake.tables:
                yield name, f"table {name} is not in the destination"
                continue
            wanted, found = self._shown(name, rows), Counter(self._held(state))
            if wanted != found:
                missing, extra = wanted - found, found - wanted
                yield state.target, f"{name}: missing {dict(missing)}, extra {dict(extra)}"

    def _held(self, state: TableState) -> list[tuple[Any, ...]]:
        names = state.target_names
        return [
            row_of({name: row.get(target) for name, target in names.items()})
            for row in live(self.lake.tables[state.target].rows)
        ]

    def _assert_equal(self, when: str) -> None:
        differing = self._differences()
        if differing:
            raise SimulationFailed(f"{when}: {'; '.join(differing.values())}")
        checkpoint = self._checkpoint()
        assert checkpoint is not None
        if not self.harmed:
            try:
                Reference(self.rules, self.postgres, self.lake).check(
                    self._states(), int(checkpoint.lsn)
                )
            except AssertionError as error:
                raise SimulationFailed(f"{when}: {error}") from error
        if self.postgres.slot is None or self.postgres.slot > checkpoint.lsn:
            raise SimulationFailed(f"slot {self.postgres.slot}, checkpoint {checkpoint.lsn}")

    def _assert_calm_tables_at(self, checkpoint: Checkpoint, until: int) -> None:
        """Tables whose definitions rested equal the source at the checkpoint, though it may have
        moved on since."""
        then = self.postgres.at(max(int(checkpoint.lsn), until))
        rested = {
            oid: rows
            for oid, rows in then.items()
            if oid in self.postgres.tables
            and self.postgres.redefined_at.get(oid, 0) < until
            and oid in checkpoint.tables
            and checkpoint.tables[oid].status is TableStatus.STREAMING
            and oid not in self.damaged
        }
        differing = dict(self._compare(checkpoint, rested))
        if differing:
            raise SimulationFailed(f"at {checkpoint.lsn}: {'; '.join(differing.values())}")


def _is_own(name: str) -> bool:
    """Whether a table of the destination is a copy of one at the source."""
    return not name.startswith("_") and not name.endswith((log_of(""), versions_of("")))


@dataclass(frozen=True)
class Listener:
    """Puts what a run reports into the story."""

    simulation: Simulation

    def emit(self, event: Event) -> None:
        match event:
            case Note(message) | Warned(message):
                self.simulation.say(f"  note: {message}")
                if " page ranges read before are unchanged" in message and "; 0 of" not in message:
                    self.simulation.reach("page ranges of a dead run are kept")
            case BatchLoaded():
                self.simulation.say(
                    f"  batch of {event.transactions} transactions, {event.changes} changes: "
                    f"checkpoint {event.lsn}"
                )


@dataclass(frozen=True)
class SimulatedClock:
    """The simulation's clock; the application goes on while a run sleeps."""

    clock: ManualClock
    meanwhile: Callable[[float], None]

    def monotonic(self) -> float:
        return self.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.meanwhile(seconds)


@contextmanager
def _small_limits(chance: random.Random) -> Iterator[None]:
    """Groups of tables and parts of batches that a few rows exceed."""
    limits: list[tuple[Any, str, int]] = [
        (multi_part_batch, "HELD_BYTES", chance.choice([0, 1 << 20])),
        (multi_part_batch, "REGROUP_ROWS", chance.choice([3, 1 << 19])),
        (read_tables, "GROUP_TABLES", chance.choice([1, 2, 100])),
    ]
    before = [getattr(module, name) for module, name, _ in limits]
    for module, name, value in limits:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(limits, before, strict=True):
            setattr(module, name, value)
