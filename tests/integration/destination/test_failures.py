"""What a destination does when the store beneath it fails: one line, nothing half done for good."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest
from dlt.common.configuration.utils import get_resolved_traces

from adapters.dlt_destination.delta.factory import delta_destination
from adapters.dlt_destination.delta.store import DeltaStore
from adapters.dlt_destination.destination import DltDestination
from adapters.dlt_destination.duckdb.factory import duckdb_destination
from adapters.dlt_destination.duckdb.store import DuckDbStore
from adapters.dlt_destination.files import work_folder
from cdc_core.values.checkpoint import Checkpoint
from cdc_core.values.errors import (
    DestinationFailed,
    DestinationRefused,
    DestinationUnavailable,
    SettingsError,
)
from cdc_core.values.lsn import Lsn
from cdc_core.values.merges import LoadBatch, TargetTable
from tests.contracts.destination_contract import (
    ORDERS,
    SOURCE,
    checkpoint,
    content,
    keyed,
    replacing,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapters.dlt_destination.settings import PipelineSettings
    from adapters.dlt_destination.table_steps import Step
    from tests.integration.destination.stores import Store
    from tests.integration.warehouse.client import Warehouse

SECRET = "4111-1111-1111-1111"
TABLES = [TargetTable(f"t{n}", ORDERS.schema) for n in range(3)]


def batch(lsn: int) -> LoadBatch:
    row = {"id": 1, "note": SECRET, "_cdc_lsn": lsn}
    return LoadBatch(merges=tuple(keyed(table, [row]) for table in TABLES))


def failing(base: type, fails: Callable[[str], bool], error: Exception, *, after: bool) -> type:
    """A store whose `apply` fails for the tables that `fails` names, before its effect or after."""

    class Failing(base):  # type: ignore[misc]
        def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
            if fails(table) and not after:
                raise error
            super().apply(client, table, steps)
            if fails(table):
                raise error

    return Failing


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("table", [TABLES[0].name, TABLES[-1].name])
def test_a_failed_table_is_reported_in_one_line_and_fixed_by_loading_again(
    store: Store,
    settings: PipelineSettings,
    table: str,
    after: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:
    error = ValueError(f"Conversion Error: could not cast '{SECRET}' and {SECRET} to INT32\nmore")
    broken = DltDestination(
        store(failing(store.base, lambda name: name == table, error, after=after)), settings
    )
    with broken:
        with pytest.raises(DestinationFailed) as failure:
            broken.load(batch(10), checkpoint(10))
        assert f"table {table!r}" in str(failure.value)
        assert "\n" not in str(failure.value)
        assert broken.read_checkpoint() is None
    with DltDestination(store(), settings) as whole:
        assert whole.read_checkpoint() is None
        whole.load(batch(10), checkpoint(10))
        whole.load(batch(12), checkpoint(12))
        assert whole.read_checkpoint() == checkpoint(12)
        for target in TABLES:
            assert content(whole, target.name, "id", "_cdc_lsn") == [(1, 12)]
    output = capfd.readouterr()
    shown = str(failure.value) + output.out + output.err
    assert "1111" not in shown
    assert failure.value.__suppress_context__


@pytest.mark.parametrize("after", [False, True])
def test_a_load_that_failed_is_repeated_with_the_same_stored_rows(
    store: Store, settings: PipelineSettings, *, after: bool
) -> None:
    """Some tables have been replaced by then, and changed in the same step."""
    unfit = {"t1"}
    error = ConnectionResetError("gone")
    broken = store(failing(store.base, lambda name: name in unfit, error, after=after))
    wholes = [table_of(table, [{"id": n, "_cdc_lsn": 1} for n in (1, 2)]) for table in TABLES]
    merges = tuple(
        keyed(table, [{"id": 2, "_cdc_lsn": 2, "_cdc_op": "D"}, {"id": 3, "_cdc_lsn": 2}])
        for table in TABLES
    )
    with DltDestination(broken, settings) as destination:
        wholes[0].load(destination, 1)
        load = replacing(destination, *wholes, merges=merges)
        with pytest.raises(DestinationUnavailable):
            destination.load(load, checkpoint(2))
        unfit.clear()
        destination.load(load, checkpoint(2))
        for target in TABLES:
            assert content(destination, target.name, "id") == [(1,), (3,)]
        assert destination.written() == frozenset()


def test_an_interrupt_while_a_table_is_loaded_is_one(
    store: Store, settings: PipelineSettings, request: pytest.FixtureRequest
) -> None:
    # Tests that run in a shell's background have interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    class Interrupted(store.base):  # type: ignore[misc, name-defined]
        def apply(self, client: Any, table: str, steps: Sequence[Step]) -> None:
            super().apply(client, table, steps)
            if table == TABLES[0].name:
                os.kill(os.getpid(), signal.SIGINT)

    loaded = None
    # Python may lose one that comes while it ends an object: a destructor raises nothing.
    for lsn in (10, 11, 12):
        with DltDestination(store(Interrupted), settings) as destination:
            try:
                destination.load(batch(lsn), checkpoint(lsn))
            except KeyboardInterrupt:
                assert destination.read_checkpoint() == loaded
                break
            loaded = checkpoint(lsn)
    else:
        pytest.fail("no interrupt")
    with DltDestination(store(), settings) as whole:
        whole.load(batch(20), checkpoint(20))
        assert whole.read_checkpoint() == checkpoint(20)


def test_a_work_folder_that_is_swept_before_it_is_locked_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the making of its lock and the locking, another run may take it for a dead one's."""
    lock, sweeps = work_folder.fcntl.flock, iter([True])

    def late(handle: int, operation: int) -> None:
        if not operation & work_folder.fcntl.LOCK_NB and next(sweeps, False):
            work_folder._sweep(tmp_path)
        lock(handle, operation)

    monkeypatch.setattr(work_folder.fcntl, "flock", late)
    with work_folder.WorkFolder(tmp_path) as folder:
        assert next(sweeps, None) is None
        assert [folder.path] == list(tmp_path.iterdir())
        work_folder._sweep(tmp_path)
        assert folder.path.exists()


def test_after_a_failure_the_same_object_loads_new_data(
    store: Store, settings: PipelineSettings
) -> None:
    """A failed package is never loaded in place of what comes next."""
    failures = iter([True])
    broken = failing(
        store.base,
        lambda name: name == "t0" and next(failures, False),
        ConnectionResetError("gone"),
        after=False,
    )
    with DltDestination(store(broken), settings) as destination:
        with pytest.raises(DestinationUnavailable):
            destination.load(batch(10), checkpoint(10))
        destination.load(batch(20), checkpoint(20))
        assert destination.read_checkpoint() == checkpoint(20)
        for target in TABLES:
            assert content(destination, target.name, "id", "_cdc_lsn") == [(1, 20)]


def test_a_column_of_another_type_is_refused(store: Store, settings: PipelineSettings) -> None:
    other = TargetTable("orders", pa.schema([("id", pa.string())]))
    with DltDestination(store(), settings) as destination:
        destination.load(
            LoadBatch(merges=(keyed(ORDERS, [{"id": 1, "_cdc_lsn": 1}]),)), checkpoint(1)
        )
        merge = keyed(other, [{"id": "x", "_cdc_lsn": 2}])
        with pytest.raises(DestinationRefused, match="string at the source") as refused:
            destination.load(LoadBatch(merges=(merge,)), checkpoint(2))
        assert refused.value.tables.keys() == {"orders"}
        assert destination.read_checkpoint() == checkpoint(1)


def test_a_column_whose_case_changed_is_not_doubled(
    store: Store, settings: PipelineSettings
) -> None:
    with DltDestination(store(), settings) as destination:
        for lsn, name in ((1, "Note"), (2, "note")):
            target = TargetTable("t", pa.schema([("id", pa.int64()), (name, pa.string())]))
            table_of(target, [{"id": 1, name: "x", "_cdc_lsn": lsn}]).load(destination, lsn)
        assert content(destination, "t", "id", "note") == [(1, "x")]


def test_narrower_rows_go_into_wider_columns(store: Store, settings: PipelineSettings) -> None:
    wide = TargetTable("t", pa.schema([("id", pa.int64()), ("p", pa.decimal128(20, 2))]))
    narrow = TargetTable("t", pa.schema([("id", pa.int16()), ("p", pa.decimal128(4, 2))]))
    with DltDestination(store(), settings) as destination:
        for lsn, target in ((1, wide), (2, narrow)):
            merge = keyed(target, [{"id": lsn, "p": Decimal("1.25"), "_cdc_lsn": lsn}])
            destination.load(LoadBatch(merges=(merge,)), checkpoint(lsn))
        pieces = list(destination.scan("t", ["id", "p"]))
        assert pieces[0].schema.types == wide.schema.types
        assert sum(len(piece) for piece in pieces) == 2


def test_a_place_that_cannot_be_is_a_wrong_setting(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("not a database, nor a folder")
    duckdb_key, delta_key = "destination.duckdb.credentials", "destination.filesystem.bucket_url"
    for destination, key in (
        (duckdb_destination(settings, str(tmp_path / "no" / "such" / "lake.duckdb")), duckdb_key),
        (duckdb_destination(settings, str(file)), duckdb_key),
        (duckdb_destination(settings, str(tmp_path)), duckdb_key),
        (delta_destination(settings, str(file / "lake")), delta_key),
        (delta_destination(settings, "/proc/lake"), delta_key),
        (delta_destination(settings, "foo://lake"), delta_key),
    ):
        with pytest.raises(SettingsError, match=re.escape(key)), destination:
            destination.load(batch(1), checkpoint(1))


def test_a_panic_of_delta_rs_is_an_error_like_any(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    """It is no `Exception`; here it comes of a folder that delta-rs makes no address of."""
    whole = table_of(ORDERS, [{"id": 1, "_cdc_lsn": 1}])
    with delta_destination(settings, str(tmp_path / "lake[1]")) as destination:
        with pytest.raises(DestinationFailed, match="loading table 'orders': PanicException"):
            whole.load(destination, 1)
        assert destination.read_checkpoint() is None
        with pytest.raises(DestinationFailed, match="trying to write: PanicException"):
            destination.try_writing()


def test_a_reader_in_passing_is_waited_for(settings: PipelineSettings, tmp_path: Path) -> None:
    place = tmp_path / "lake.duckdb"
    with duckdb_destination(settings, str(place)) as destination:
        destination.load(batch(1), checkpoint(1))
    script = (
        "import duckdb, sys, time\n"
        "connection = duckdb.connect(sys.argv[1], read_only=True)\n"
        "print('reading', flush=True)\n"
        "time.sleep(1)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(place)], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    with duckdb_destination(settings, str(place)) as destination:
        destination.load(batch(2), checkpoint(2))
        assert destination.read_checkpoint() == checkpoint(2)
    assert reader.wait() == 0
    with duckdb.connect(str(place), read_only=True) as connection:
        assert connection.execute("SELECT COUNT(*) FROM bronze.t0").fetchall() == [(1,)]


def test_the_newest_checkpoint_is_found_though_the_clock_was_set_back(
    store: Store, settings: PipelineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlt.common.time import increasing_precise_time as clock

    monkeypatch.setattr(clock, "_last", time.time() + 86_400)
    with DltDestination(store(), settings) as destination:
        destination.load(batch(1), checkpoint(1))
    for lsn in (2, 3):
        monkeypatch.setattr(clock, "_last", time.time())
        with DltDestination(store(), settings) as destination:
            assert destination.read_checkpoint() == checkpoint(lsn - 1)
            destination.load(batch(lsn), checkpoint(lsn))
    with DltDestination(store(), settings) as destination:
        assert destination.read_checkpoint() == checkpoint(3)


def test_old_states_go(
    request: pytest.FixtureRequest,
    store: Store,
    settings: PipelineSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adapters.dlt_destination.dlt.state_keeping.KEPT", 5)
    with DltDestination(store(), settings) as destination:
        for lsn in range(1, 13):
            destination.load(LoadBatch(), checkpoint(lsn))
        assert destination.read_checkpoint() == checkpoint(12)
    with DltDestination(store(), settings) as destination:
        assert destination.read_checkpoint() == checkpoint(12)
    if store.base is DuckDbStore:
        with duckdb.connect(store.place, read_only=True) as connection:
            rows = connection.execute("SELECT COUNT(*) FROM bronze._dlt_pipeline_state").fetchall()
        assert rows[0][0] <= 11
    elif store.base is DeltaStore:
        assert len(list(Path(store.place, "bronze", "_dlt_loads").iterdir())) <= 10
    else:
        warehouse: Warehouse = request.getfixturevalue("warehouse")
        assert warehouse.read_table("bronze", "_dlt_pipeline_state").num_rows <= 11


def test_work_folders_of_killed_runs_are_swept_up(
    settings: PipelineSettings, tmp_path: Path
) -> None:
    assert settings.work_folder is not None
    left_over = settings.work_folder / f"{work_folder.PREFIX}dead"
    left_over.mkdir(parents=True)
    (left_over / ".lock").touch()
    (left_over / "big.parquet").touch()
    elsewhere = settings.work_folder / "other"
    elsewhere.mkdir()
    with duckdb_destination(settings, str(tmp_path / "a.duckdb")):
        assert not left_over.exists()
        living = [path for path in settings.work_folder.iterdir() if path != elsewhere]
        assert len(living) == 1
        with duckdb_destination(settings, str(tmp_path / "b.duckdb")):
            assert living[0].exists()
    assert list(settings.work_folder.iterdir()) == [elsewhere]


def test_datasets_and_pipelines_do_not_see_each_other(
    store: Store, settings: PipelineSettings
) -> None:
    others = replace(settings, dataset_name="silver")
    with DltDestination(store(), settings) as one, DltDestination(store(), others) as two:
        one.load(batch(1), checkpoint(1))
        assert two.read_checkpoint() is None
        assert dict(two.tables()) == {}
        two.load(LoadBatch(), checkpoint(5))
        assert one.read_checkpoint() == checkpoint(1)


def test_a_checkpoint_of_another_version_is_refused(
    store: Store, settings: PipelineSettings
) -> None:
    class FromLater(Checkpoint):
        def to_state(self) -> dict[str, Any]:
            return {**super().to_state(), "version": 99}

    with DltDestination(store(), settings) as destination:
        destination.load(LoadBatch(), FromLater(SOURCE, Lsn(1)))
        with pytest.raises(DestinationFailed, match="another version"):
            destination.read_checkpoint()


def test_a_missing_setting_is_named(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"destination\.filesystem\.bucket_url"):
        delta_destination(settings).__enter__()
    misnamed = replace(settings, pipeline_name="a/b")
    with pytest.raises(SettingsError, match=r"pipeline\.name"):
        duckdb_destination(misnamed, str(tmp_path / "lake.duckdb")).__enter__()


def test_delta_folders_stay_small(
    settings: PipelineSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.dlt_destination.delta.upkeep.UPKEEP_EVERY", 4)
    properties = {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    monkeypatch.setattr("adapters.dlt_destination.delta.definitions.PROPERTIES", properties)
    with delta_destination(settings, str(tmp_path)) as destination:
        for lsn in range(1, 10):
            rows = [{"id": lsn, "note": "a", "_cdc_lsn": lsn}, {"id": 0, "_cdc_lsn": lsn}]
            destination.load(LoadBatch(merges=(keyed(ORDERS, rows),)), checkpoint(lsn))
        assert content(destination, "orders", "id") == [(n,) for n in range(10)]
    assert len(list((tmp_path / "bronze" / "orders").glob("*.parquet"))) <= 5


def test_a_run_of_many_batches_keeps_nothing_of_each(
    store: Store, settings: PipelineSettings
) -> None:
    """Neither dlt's packages nor what it looked up for them."""
    held = []
    with DltDestination(store(), settings) as destination:
        for lsn in range(10, 16):
            destination.load(batch(lsn), checkpoint(lsn))
            files = sum(path.is_file() for path in settings.work_folder.rglob("*"))
            held.append((files, len(get_resolved_traces().all_traces)))
    assert len(set(held[1:])) == 1, held
