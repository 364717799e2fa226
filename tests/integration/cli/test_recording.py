"""`record` and `replay` at the command line: what is in the file, and what is refused."""

from __future__ import annotations

import json
import stat
import zipfile
from typing import TYPE_CHECKING

import pytest

from adapters.pgoutput.recording.recording_file import FORMAT, new_recording, open_recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.cli.conftest import Outcome, Shop

PEOPLE = """
CREATE TYPE mood AS ENUM ('cheerful', 'grumpy');
CREATE TABLE places (name text, id int, PRIMARY KEY (name)) PARTITION BY LIST (name);
CREATE TABLE places_east PARTITION OF places FOR VALUES IN ('Zanzibar');
CREATE TABLE people (mood mood, id int PRIMARY KEY, email text, born date,
  born_at timestamptz, tags text[], card numeric(16,0), extra jsonb, photo bytea, code uuid,
  weight float8);
INSERT INTO people VALUES ('cheerful', 1001, 'Ada.Lovelace@Example.org', '1815-12-10',
  '1985-10-26 01:22:33.456', '{alpha,"beta gamma"}', 4556737586899855, '{"pin": "hunter-9876"}',
  '\\xdeadbeefcafe', '123e4567-e89b-42d3-a456-426614174000', 71.4142135)
"""
CHANGES = """
UPDATE people SET weight = 65.1234567 WHERE id = 1001;
INSERT INTO people VALUES ('grumpy', 2002, 'Grace.Hopper@Example.org', '1906-12-09',
  '1999-12-31 23:59:58.125', '{delta}', 5425233430109903, '{"pin": "qwerty-1234"}',
  '\\xfeedface0123', '00112233-4455-4677-8899-aabbccddeeff', 58.7654321);
SELECT pg_logical_emit_message(true, 'note', 'whispered-words')
"""
#: Parts of the values, as text and as in files of Arrow.
ORIGINALS = [
    *("Lovelace", "Hopper", "1815-12-10", "1906-12-09", "1985-10-26", "1999-12-31", "22:33.456"),
    *("alpha", "beta", "delta", "4556737586899855", "5425233430109903", "hunter", "9876", "qwerty"),
    *(
        "whispered",
        "cheerful",
        "grumpy",
        "Zanzibar",
        "123e4567",
        "00112233-4455",
        "71.4142135",
        "65.1234567",
        "58.7654321",
    ),
]
BINARY = [
    *(text.encode() for text in ORIGINALS),
    *(text.encode().hex().encode() for text in ORIGINALS),
    *(b"\xde\xad\xbe\xef\xca\xfe", b"deadbeefcafe", b"\xfe\xed\xfa\xce\x01\x23", b"feedface0123"),
]


@pytest.fixture
def recorded(shop: Shop) -> Callable[..., Path]:
    """Make a recording of the changes to one table."""
    shop.sql(PEOPLE)
    shop.run("snapshot")
    shop.sql(CHANGES)

    def record(*options: str, name: str = "bug.pgbronze") -> Path:
        shop.run("record", name, *options)
        return shop.folder / name

    return record


def replay(shop: Shop, *arguments: str, code: int = 0, file: str = "bug.pgbronze") -> Outcome:
    """Run `replay` without settings of the source, into a folder of its own."""
    (shop.folder / "replayed").mkdir(exist_ok=True)
    shop.environ = {k: v for k, v in shop.environ.items() if not k.startswith("SOURCES__")}
    shop.environ["DESTINATION__DUCKDB__CREDENTIALS"] = str(shop.folder / "replayed/lake.duckdb")
    shop.environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(shop.folder / "replayed/delta")
    return shop.run("replay", file, *arguments, code=code)


def content(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewritten(file: Path, **changes: object) -> None:
    """Change entries of the index, in place."""
    found = content(file)
    index = json.loads(found["recording.json"]) | changes
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in {**found, "recording.json": json.dumps(index).encode()}.items():
            archive.writestr(name, data)


def retargeted(file: Path, target: str) -> None:
    """Give the tables of the checkpoint another target."""
    checkpoint = json.loads(content(file)["recording.json"])["checkpoint"]
    for table in checkpoint["tables"]:
        table["target"] = target
    rewritten(file, checkpoint=checkpoint)


#: A recording must not say where its replay writes.
DUCKDB = "is no recording: it has the setting destination.duckdb.credentials"


@pytest.mark.parametrize("kind", ["duckdb", "delta"])
def test_a_recording_runs_without_the_source(
    shop: Shop, recorded: Callable[..., Path], kind: str
) -> None:
    recorded()
    before = shop.lake_sql("SELECT * FROM bronze.people")
    shown = replay(shop, *([] if kind == "duckdb" else ["--destination", "delta"]))
    assert "public.people" in shown.out
    assert "replay done: 2 changes of 1 transactions" in shown.error
    # The update brings its row: none of its values is out of line.
    assert _ids(shop, kind) == [1001, 2002]
    shop.environ["DESTINATION__DUCKDB__CREDENTIALS"] = str(shop.lake)
    assert shop.lake_sql("SELECT * FROM bronze.people") == before


def test_what_a_recording_says_about_values(shop: Shop, recorded: Callable[..., Path]) -> None:
    assert "contains row values" in shop.run("record", "plain").error
    assert "contains row values" not in shop.run("record", "masked", "--mask").error
    assert stat.S_IMODE(recorded().stat().st_mode) == 0o600


def test_the_file_has_no_secret_and_no_address(shop: Shop, recorded: Callable[..., Path]) -> None:
    for file in (recorded(), recorded("--rows", "--mask")):
        whole = b"".join(content(file).values())
        for hidden in (shop.server.password, "127.0.0.1", str(shop.server.port), str(shop.folder)):
            assert hidden.encode() not in whole


@pytest.mark.parametrize("options", [[], ["--rows"]])
def test_a_masked_file_has_no_value(
    shop: Shop, recorded: Callable[..., Path], options: list[str]
) -> None:
    plain = b"".join(content(recorded("--rows")).values())
    assert sum(text in plain for text in BINARY) > len(BINARY) // 3
    masked = b"".join(content(recorded("--mask", *options)).values())
    assert [text for text in BINARY if text in masked] == []
    replay(shop)
    assert len(_ids(shop)) == 2


def test_a_second_replay_takes_the_place_of_the_first(
    shop: Shop, recorded: Callable[..., Path]
) -> None:
    recorded("--rows")
    for _ in range(2):
        replay(shop)
        assert _ids(shop) == [1001, 2002]


def test_a_replay_leaves_a_lake_alone(shop: Shop, recorded: Callable[..., Path]) -> None:
    recorded()
    before = shop.lake_sql("SELECT * FROM bronze.people")
    shown = shop.run("replay", "bug.pgbronze", code=2)
    assert "holds tables that no replay made" in shown.line
    assert "--dataset-name=replay" in shown.line
    assert shop.lake_sql("SELECT * FROM bronze.people") == before
    shop.run("replay", "bug.pgbronze", "--dataset-name=replay")
    assert shop.lake_sql("SELECT count(*) FROM replay.people") == [(2,)]
    shop.run("cdc")
    assert shop.lake_sql("SELECT count(*) FROM bronze.people") == [(2,)]


def test_no_run_continues_from_a_replay(shop: Shop, recorded: Callable[..., Path]) -> None:
    recorded()
    environ = dict(shop.environ)
    replay(shop)
    lake = {"DESTINATION__DUCKDB__CREDENTIALS": str(shop.folder / "replayed/lake.duckdb")}
    assert shop.run("cdc", code=3, **{**environ, **lake}).line


def test_a_table_that_is_read_whole(shop: Shop, recorded: Callable[..., Path]) -> None:
    """A new one: its rows are in the file if they were asked for."""
    shop.sql("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (7)")
    recorded()
    recorded("--rows", name="rows.pgbronze")
    assert "late" not in str(shop.sql("SELECT tablename FROM pg_publication_tables"))
    shown = replay(shop)
    assert "public.late: the run reads the whole table" in shown.error
    shown = replay(shop, file="rows.pgbronze")
    assert "the run reads the whole table" not in shown.error
    shop.folder = shop.folder / "replayed"
    assert shop.lake_sql("SELECT id FROM bronze.late") == [(7,)]


def test_a_recording_has_the_rules_of_the_run(shop: Shop, recorded: Callable[..., Path]) -> None:
    shop.sql("CREATE SCHEMA billing; CREATE TABLE billing.bills (id int PRIMARY KEY)")
    schemas = '["public", "billing"]'
    shop.environ["SOURCES__PG_REPLICATION__SCHEMAS"] = schemas
    shop.environ["PIPELINE__SCHEMA_CHANGES"] = "freeze"
    shop.run("snapshot")
    shop.sql("INSERT INTO billing.bills VALUES (1); ALTER TABLE people ADD hat text")
    recorded()
    del shop.environ["PIPELINE__SCHEMA_CHANGES"]
    shown = replay(shop, code=3)
    assert "freeze" in shown.line
    assert "billing__bills" in shown.out


@pytest.mark.parametrize("options", [[], ["--mask"]])
def test_a_recording_has_the_rules_of_tables(shop: Shop, options: list[str]) -> None:
    """The replay hashes with a key of its own: the run's is a secret."""
    rules = [
        {"match": "people", "exclude_columns": ["card", "extra"], "deletes": "soft"},
        {
            "match": "people",
            "mask": {"email": "hash", "code": "last4", "photo": "null"},
            "json": "variant",
        },
    ]
    shop.environ["SOURCES__PG_REPLICATION__TABLES"] = json.dumps(rules)
    shop.environ["SOURCES__PG_REPLICATION__MASK_KEY"] = "key-of-the-run"
    shop.sql(PEOPLE)
    shop.run("snapshot")
    shop.sql(CHANGES)
    shop.run("record", "bug.pgbronze", "--rows", *options)
    whole = b"".join(content(shop.folder / "bug.pgbronze").values())
    assert b"key-of-the-run" not in whole
    shown = replay(shop)
    assert "reads the whole table" not in shown.error
    assert "replay done: 2 changes of 1 transactions" in shown.error
    shop.folder = shop.folder / "replayed"
    query = "SELECT length(email), code[:4], photo FROM bronze.people"
    assert shop.lake_sql(query) == [(64, "****", None)] * 2
    columns = shop.lake_sql("SELECT column_name FROM (DESCRIBE bronze.people)")
    assert ("card",) not in columns


@pytest.mark.parametrize("options", [["--rows"], ["--rows", "--mask"]])
def test_values_in_types_of_the_destination(shop: Shop, options: list[str]) -> None:
    """Lists and JSON, whose rows the destination does not hold as texts."""
    rules = [{"match": "people", "json": "variant", "arrays": "array"}]
    shop.environ["SOURCES__PG_REPLICATION__TABLES"] = json.dumps(rules)
    shop.sql(PEOPLE)
    shop.run("snapshot")
    shop.sql("UPDATE people SET weight = 1.5; INSERT INTO people (id, tags) VALUES (3003, '{}')")
    shop.run("record", "bug.pgbronze", *options)
    shown = replay(shop)
    assert "reads the whole table" not in shown.error
    shop.folder = shop.folder / "replayed"
    query = "SELECT len(tags), json_type(extra, '$') FROM bronze.people"
    assert sorted(shop.lake_sql(query), key=str) == [(0, None), (2, "OBJECT")]


@pytest.mark.parametrize("options", [[], ["--rows"]])
def test_a_replay_writes_history(shop: Shop, options: list[str]) -> None:
    """From the recorded position on."""
    rules = [{"match": "people", "history": ["log", "scd2"], "deletes": "soft"}]
    shop.environ["SOURCES__PG_REPLICATION__TABLES"] = json.dumps(rules)
    shop.sql(PEOPLE)
    shop.run("snapshot")
    shop.sql(CHANGES)
    shop.run("record", "bug.pgbronze", *options)
    shown = replay(shop)
    assert "reads the whole table" not in shown.error
    shop.folder = shop.folder / "replayed"
    images = shop.lake_sql(
        "SELECT id, _pg_change_type FROM bronze.people_history ORDER BY _sort_by"
    )
    assert images[-3:-1] == [(1001, "update_preimage"), (1001, "update_postimage")]
    assert images[-1] == (2002, "insert")
    current = shop.lake_sql("SELECT id FROM bronze.people_scd2 WHERE _cdc_end_lsn IS NULL")
    assert sorted(current) == [(1001,), (2002,)]


def test_a_message_that_cannot_be_decoded_is_in_the_file(
    shop: Shop, recorded: Callable[..., Path]
) -> None:
    file = recorded()
    with open_recording(file) as found, new_recording(shop.folder / "broken") as writer:
        index = found.index
        runs = []
        for run in found.runs():
            buffer = run.buffer.copy()
            # In text, a letter in a number; in binary, nothing reads as 17 columns.
            rows = run.offsets[:-1][run.kinds() == ord("I")]
            buffer[rows[:1] + 7] = 17
            runs.append(type(run)(buffer, run.offsets, run.reached))
        writer.add_messages(iter(runs))
        writer.finish({key: value for key, value in index.items() if key != "runs"})
    shown = replay(shop, code=1, file="broken")
    assert "pgbronze: " in shown.line
    assert "unexpected" not in shown.line


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda file: rewritten(file, format=FORMAT + 1), "has format 2 of recordings, written by"),
        (lambda file: rewritten(file, settings={"destination.duckdb.credentials": "/x"}), DUCKDB),
        (lambda file: rewritten(file, settings=None), "is no recording: it has no settings"),
        (lambda file: rewritten(file, catalog={}), "is no recording: its index cannot be read"),
        (lambda file: rewritten(file, slot={"x": 1}), "is no recording: its index cannot be read"),
        (lambda file: retargeted(file, "../../out"), "is no recording: it names the table"),
        (lambda file: file.write_bytes(b"no zip"), "is no recording"),
        (lambda file: file.write_bytes(b""), "is no recording"),
        (lambda file: file.write_bytes(file.read_bytes()[:-50]), "is no recording"),
        (lambda file: file.unlink(), "cannot be read: No such file or directory"),
        (lambda file: zipfile.ZipFile(file, "w").close(), "is no recording"),
    ],
)
def test_a_file_that_cannot_be_read_is_exit_2(
    shop: Shop, recorded: Callable[..., Path], change: Callable[[Path], object], line: str
) -> None:
    file = recorded()
    change(file)
    shown = replay(shop, code=2)
    assert "bug.pgbronze" in shown.line
    assert line in shown.line


def test_a_damaged_file_is_exit_2(shop: Shop, recorded: Callable[..., Path]) -> None:
    file = recorded()
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo("messages/0.arrow")
    data = bytearray(file.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0xFF
    file.write_bytes(data)
    assert "bug.pgbronze is damaged at " in replay(shop, code=2).line


def test_places_that_are_refused(shop: Shop, recorded: Callable[..., Path]) -> None:
    recorded()
    assert "local destination" in replay(shop, "--destination", "databricks", code=2).line
    shop.environ["DESTINATION__FILESYSTEM__BUCKET_URL"] = "s3://bucket/lake"
    shown = shop.run("replay", "bug.pgbronze", "--destination", "delta", code=2)
    assert "local destination" in shown.line


def test_what_record_refuses(shop: Shop) -> None:
    shop.sql(PEOPLE)
    assert "no snapshot was taken yet" in shop.run("record", "bug", code=3).line
    assert not (shop.folder / "bug").exists()
    shop.run("snapshot")
    (shop.folder / "letter").write_text("dear")
    assert "letter exists and is no recording" in shop.run("record", "letter", code=2).line
    assert (shop.folder / "letter").read_text() == "dear"
    assert "cannot be written" in shop.run("record", "no/such/folder", code=2).line
    assert sorted(path.name for path in shop.folder.iterdir() if "bug" in path.name) == []


def _ids(shop: Shop, kind: str = "duckdb") -> list[object]:
    if kind == "delta":
        from deltalake import DeltaTable

        table = DeltaTable(shop.folder / "replayed/delta/bronze/people").to_pyarrow_dataset()
        return sorted(table.to_table().column("id").to_pylist())
    import duckdb

    with duckdb.connect(str(shop.folder / "replayed/lake.duckdb"), read_only=True) as connection:
        found = connection.execute("SELECT id FROM bronze.people ORDER BY id").fetchall()
    return [row[0] for row in found]
