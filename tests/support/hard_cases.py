"""The hard cases of change data capture as SQL: each on tables of its own, all in one database.

A case is what an application does; what the destination must hold is never written here, it is what
PostgreSQL holds afterwards. Every string is one transaction unless it says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Text that is stored out of line, whatever its compression.
_BIG = "(SELECT string_agg(md5(g || ' ' || ({salt})), '') FROM generate_series(1, 300) AS g)"


def big(salt: object = 0) -> str:
    """An SQL expression for a text of 9600 letters that no compression makes short."""
    return _BIG.format(salt=salt)


@dataclass(frozen=True)
class Round:
    """What is done between two runs of `cdc`; `tables` are compared after it, if not the case's."""

    transactions: tuple[str, ...]
    tables: tuple[str, ...] | None = None
    #: Columns that the source has no more.
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class HardCase:
    """`number` is the group's: one of the fifteen. `setup` comes before the snapshot."""

    number: int
    title: str
    tables: tuple[str, ...]
    setup: str
    rounds: tuple[Round, ...]


def case(
    number: int, title: str, tables: str, setup: str, *rounds: Round | tuple[str, ...] | str
) -> HardCase:
    """A case whose rounds may be one transaction, several, or a `Round`."""
    made = []
    for each in rounds:
        match each:
            case Round():
                made.append(each)
            case str():
                made.append(Round((each,)))
            case _:
                made.append(Round(each))
    return HardCase(number, title, tuple(tables.split()), setup, tuple(made))


def _toast(name: str, identity: str = "", key: str = "PRIMARY KEY") -> str:
    """A table with three rows whose `big` and `other` are out of line."""
    return f"""
CREATE TABLE {name} (id int {key}, n int, big text, other text);
ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL, ALTER other SET STORAGE EXTERNAL {identity};
INSERT INTO {name} SELECT i, i, {big("i")}, {big("-i")} FROM generate_series(1, 6) AS i;
"""


TOAST = (
    case(
        1,
        "an update of another column",
        "toast_plain",
        _toast("toast_plain"),
        "UPDATE toast_plain SET n = n + 1",
        ("UPDATE toast_plain SET n = n + 1 WHERE id < 4", "UPDATE toast_plain SET n = 0"),
    ),
    case(
        1,
        "an insert or update of the long value, then an update of another column",
        "toast_fold",
        _toast("toast_fold"),
        (
            f"INSERT INTO toast_fold VALUES (10, 1, {big(10)}, {big(11)});"
            "UPDATE toast_fold SET n = 2 WHERE id = 10",
            "UPDATE toast_fold SET n = 3 WHERE id = 10",
            f"UPDATE toast_fold SET big = {big(12)} WHERE id = 1;"
            "UPDATE toast_fold SET n = 9 WHERE id = 1;"
            f"UPDATE toast_fold SET other = {big(13)} WHERE id = 1",
            "UPDATE toast_fold SET n = 10 WHERE id = 1",
        ),
        (
            f"UPDATE toast_fold SET big = {big(14)} WHERE id = 10",
            "UPDATE toast_fold SET n = 4 WHERE id = 10; DELETE FROM toast_fold WHERE id = 1;"
            f"INSERT INTO toast_fold VALUES (1, 1, {big(15)}, 'short')",
            "UPDATE toast_fold SET n = 5",
        ),
    ),
    case(
        1,
        "a value that is NULL, short and long in turn",
        "toast_null",
        _toast("toast_null"),
        (
            "UPDATE toast_null SET big = NULL WHERE id = 1; UPDATE toast_null SET n = 0",
            "UPDATE toast_null SET big = '' WHERE id = 2",
            "UPDATE toast_null SET n = 1",
        ),
        (
            f"UPDATE toast_null SET big = {big(1)} WHERE id = 1",
            "UPDATE toast_null SET n = 2, other = NULL",
            "UPDATE toast_null SET n = 3",
        ),
    ),
    case(
        1,
        "an update that also changes the key",
        "toast_key",
        _toast("toast_key"),
        "UPDATE toast_key SET id = id + 100, n = 0 WHERE id < 3",
        (
            # Along a chain, into a key that was just freed, and with a new value half-way.
            "UPDATE toast_key SET id = 200 WHERE id = 3; UPDATE toast_key SET id = 3 WHERE id = 4;"
            "UPDATE toast_key SET id = 4 WHERE id = 200",
            f"UPDATE toast_key SET id = 55, big = {big(55)} WHERE id = 5",
            "UPDATE toast_key SET id = 56 WHERE id = 55; UPDATE toast_key SET n = 7",
        ),
        (
            "UPDATE toast_key SET id = 300 WHERE id = 6",
            f"INSERT INTO toast_key VALUES (6, 6, {big(66)}, NULL)",
            "UPDATE toast_key SET id = id + 1000",
        ),
    ),
    case(
        1,
        "an update that changes the key of an identity index",
        "toast_index",
        _toast("toast_index", key="NOT NULL")
        + "CREATE UNIQUE INDEX toast_index_id ON toast_index (id);"
        "ALTER TABLE toast_index REPLICA IDENTITY USING INDEX toast_index_id",
        "UPDATE toast_index SET n = n + 1",
        ("UPDATE toast_index SET id = id + 50 WHERE id < 4", "UPDATE toast_index SET n = 0"),
    ),
    case(
        1,
        "REPLICA IDENTITY FULL with a primary key that changes",
        "toast_full",
        _toast("toast_full", ", REPLICA IDENTITY FULL"),
        "UPDATE toast_full SET n = n + 1",
        (
            "UPDATE toast_full SET id = id + 100 WHERE id < 4",
            f"UPDATE toast_full SET id = id + 100, big = {big(3)} WHERE id = 101",
            "UPDATE toast_full SET n = 0",
        ),
    ),
    case(
        1,
        "REPLICA IDENTITY FULL without a key",
        "toast_heap",
        _toast("toast_heap", ", REPLICA IDENTITY FULL", key="")
        + "INSERT INTO toast_heap SELECT * FROM toast_heap",
        "UPDATE toast_heap SET n = n + 1 WHERE id < 4",
        (
            "UPDATE toast_heap SET other = NULL WHERE id = 1; UPDATE toast_heap SET n = 9",
            "DELETE FROM toast_heap WHERE ctid = (SELECT min(ctid) FROM toast_heap WHERE id = 2)",
        ),
    ),
    case(
        1,
        "a key that is stored out of line",
        "toast_long_key",
        "CREATE TABLE toast_long_key (k text PRIMARY KEY, n int)"
        " WITH (toast_tuple_target = 128);"
        "INSERT INTO toast_long_key SELECT repeat(md5(i::text), 400), i"
        " FROM generate_series(1, 5) AS i",
        "UPDATE toast_long_key SET n = n + 1",
        (
            "UPDATE toast_long_key SET k = k || 'x' WHERE n < 4",
            "UPDATE toast_long_key SET n = n + 1; DELETE FROM toast_long_key WHERE n = 6",
        ),
    ),
)

KEYS = (
    case(
        2,
        "0.0 becomes -0.0",
        "float_key",
        "CREATE TABLE float_key (a float8 PRIMARY KEY, v int);"
        "INSERT INTO float_key VALUES (0, 1), (1, 1), ('nan', 1)",
        "UPDATE float_key SET a = '-0' WHERE a = 0; UPDATE float_key SET v = 2 WHERE a = 'nan'",
        "UPDATE float_key SET a = 0, v = 3 WHERE a = 0; DELETE FROM float_key WHERE a = 'nan'",
    ),
    case(
        2,
        "keys swapped, chained and shifted in one transaction",
        "key_moves",
        "CREATE TABLE key_moves (id int PRIMARY KEY, v text);"
        "INSERT INTO key_moves SELECT i, 'v' || i FROM generate_series(1, 20) AS i",
        "UPDATE key_moves SET id = -1 WHERE id = 1; UPDATE key_moves SET id = 1 WHERE id = 2;"
        "UPDATE key_moves SET id = 2 WHERE id = -1",
        (
            "UPDATE key_moves SET id = id + 100; UPDATE key_moves SET id = id - 99",
            "UPDATE key_moves SET id = 500 WHERE id = 5; UPDATE key_moves SET id = 501"
            " WHERE id = 500; UPDATE key_moves SET id = 5, v = 'back' WHERE id = 501",
            "UPDATE key_moves SET id = 600 WHERE id = 6; DELETE FROM key_moves WHERE id = 600",
            "UPDATE key_moves SET id = 6 WHERE id = 7; INSERT INTO key_moves VALUES (7, 'new')",
        ),
    ),
    case(
        2,
        "composite keys with unusual types and values",
        "key_wide",
        "CREATE TABLE key_wide (a numeric, b text, c timestamptz, d bytea, v int,"
        " PRIMARY KEY (a, b, c, d));"
        "INSERT INTO key_wide VALUES (1.0, '', '2020-01-01', '', 1), (1.5, 'Ä', '2020-01-01',"
        " '\\x00', 2), ('NaN', 'a', '2020-01-01', '\\xff', 3), (1.5, 'ä', '2020-01-01', '\\x00', 4)",
        "UPDATE key_wide SET v = v + 10; UPDATE key_wide SET b = b || ' ' WHERE v = 11;"
        "UPDATE key_wide SET a = 0 WHERE v = 13",
        "DELETE FROM key_wide WHERE b = 'Ä'; UPDATE key_wide SET d = d || '\\x01'",
    ),
    case(
        2,
        "keys that do not fit their destination type",
        "key_odd key_odd_pair",
        "CREATE TABLE key_odd (k date PRIMARY KEY, v text); INSERT INTO key_odd VALUES"
        " ('infinity', 'a'), ('-infinity', 'b'), ('4000-01-01 BC', 'c'), ('2020-01-01', 'd');"
        "CREATE TABLE key_odd_pair (a int, b numeric(5,2), v text, PRIMARY KEY (a, b));"
        "INSERT INTO key_odd_pair VALUES (1, 'NaN', 'a'), (1, 1.5, 'b'), (2, 'NaN', 'c')",
        "UPDATE key_odd SET v = v || '1'; UPDATE key_odd_pair SET v = v || '1' WHERE a = 1",
        (
            "DELETE FROM key_odd WHERE k = 'infinity'; DELETE FROM key_odd_pair WHERE a = 2",
            "UPDATE key_odd SET k = 'infinity' WHERE k = '2020-01-01'",
            "UPDATE key_odd_pair SET b = 2 WHERE b = 'NaN'",
        ),
        "INSERT INTO key_odd VALUES ('2021-01-01', 'e'); UPDATE key_odd_pair SET v = 'z'",
    ),
    case(
        2,
        "deferred unique and foreign key constraints",
        "key_parent key_child",
        "CREATE TABLE key_parent (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);"
        "CREATE TABLE key_child (id int PRIMARY KEY, parent int REFERENCES key_parent"
        " ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO key_parent VALUES (1, 1), (2, 2), (3, 3);"
        "INSERT INTO key_child VALUES (1, 1), (2, 2), (3, 3)",
        "UPDATE key_parent SET u = 4 - u",
        (
            "INSERT INTO key_child VALUES (4, 40); INSERT INTO key_parent VALUES (40, 40)",
            "UPDATE key_parent SET id = id + 100; DELETE FROM key_parent WHERE id = 103",
        ),
    ),
)

ORDER = (
    case(
        3,
        "many changes of one key, in one and several transactions",
        "order_one",
        "CREATE TABLE order_one (id int PRIMARY KEY, v text); INSERT INTO order_one VALUES"
        " (1, 'a'), (2, 'a'), (3, 'a'), (4, 'a')",
        (
            "DELETE FROM order_one WHERE id = 1; INSERT INTO order_one VALUES (1, 'again')",
            "INSERT INTO order_one VALUES (10, 'x'); DELETE FROM order_one WHERE id = 10",
            "DELETE FROM order_one WHERE id = 2; INSERT INTO order_one VALUES (2, 'b');"
            "UPDATE order_one SET v = 'c' WHERE id = 2; DELETE FROM order_one WHERE id = 2",
            "INSERT INTO order_one VALUES (2, 'last'); UPDATE order_one SET v = v || '!'",
        ),
        (
            "UPDATE order_one SET v = 'x' WHERE id = 3; DELETE FROM order_one WHERE id = 3;"
            "UPDATE order_one SET id = 3 WHERE id = 4; INSERT INTO order_one VALUES (4, 'z')",
            "DELETE FROM order_one WHERE id = 4",
            "INSERT INTO order_one VALUES (4, 'end')",
        ),
    ),
    case(
        4,
        "a delete of a key that the destination never had",
        "never_had",
        "CREATE TABLE never_had (id int PRIMARY KEY, v text); INSERT INTO never_had VALUES (1, 'a')",
        ("INSERT INTO never_had VALUES (2, 'b')", "DELETE FROM never_had WHERE id = 2"),
        (
            "INSERT INTO never_had VALUES (3, 'c'); UPDATE never_had SET id = 4 WHERE id = 3",
            "UPDATE never_had SET id = 5 WHERE id = 4; DELETE FROM never_had",
        ),
    ),
)

TRUNCATES = (
    case(
        5,
        "TRUNCATE between other changes of one transaction",
        "cut",
        "CREATE TABLE cut (id int PRIMARY KEY, v text); INSERT INTO cut VALUES (1, 'a'), (2, 'b')",
        (
            "UPDATE cut SET v = 'lost'; TRUNCATE cut; INSERT INTO cut VALUES (1, 'new')",
            "INSERT INTO cut VALUES (2, 'new')",
        ),
        ("INSERT INTO cut VALUES (3, 'x')", "TRUNCATE cut", "INSERT INTO cut VALUES (2, 'y')"),
        ("INSERT INTO cut VALUES (4, 'x')", "TRUNCATE cut"),
    ),
    case(
        5,
        "TRUNCATE of several tables, with CASCADE and RESTART IDENTITY",
        "cut_parent cut_child cut_aside",
        "CREATE TABLE cut_parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);"
        "CREATE TABLE cut_child (id serial PRIMARY KEY, parent int REFERENCES cut_parent);"
        "CREATE TABLE cut_aside (id int PRIMARY KEY);"
        "INSERT INTO cut_parent (v) VALUES (1), (2); INSERT INTO cut_child (parent) VALUES (1);"
        "INSERT INTO cut_aside VALUES (1)",
        (
            "TRUNCATE cut_parent, cut_aside RESTART IDENTITY CASCADE;"
            "INSERT INTO cut_parent (v) VALUES (7); INSERT INTO cut_child (parent) VALUES (1)",
            "INSERT INTO cut_aside VALUES (5)",
        ),
        "INSERT INTO cut_child (parent) VALUES (1); TRUNCATE cut_parent CASCADE",
    ),
    case(
        5,
        "TRUNCATE of a table without a key",
        "cut_heap",
        "CREATE TABLE cut_heap (v int); ALTER TABLE cut_heap REPLICA IDENTITY FULL;"
        "INSERT INTO cut_heap VALUES (1), (1), (2)",
        ("INSERT INTO cut_heap VALUES (1)", "TRUNCATE cut_heap; INSERT INTO cut_heap VALUES (1)"),
        "DELETE FROM cut_heap; INSERT INTO cut_heap VALUES (3), (3); TRUNCATE cut_heap",
    ),
)

KEYLESS = (
    case(
        6,
        "duplicate rows, with REPLICA IDENTITY FULL",
        "bag",
        "CREATE TABLE bag (a int, b text, c numeric); ALTER TABLE bag REPLICA IDENTITY FULL;"
        "INSERT INTO bag VALUES (1, 'x', 1.0), (1, 'x', 1.0), (1, 'x', 1.0), (1, 'x', 1.00),"
        " (NULL, NULL, NULL), (NULL, NULL, NULL), (2, '', 'NaN')",
        (
            "DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a = 1)",
            "INSERT INTO bag VALUES (2, '', 'NaN'), (NULL, NULL, NULL)",
            "UPDATE bag SET b = 'y' WHERE ctid = (SELECT max(ctid) FROM bag WHERE a = 1)",
        ),
        (
            "UPDATE bag SET a = a + 1; UPDATE bag SET b = NULL WHERE a = 3",
            "DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a IS NULL)",
            "INSERT INTO bag SELECT * FROM bag; DELETE FROM bag WHERE b = 'y'",
        ),
    ),
    case(
        6,
        "REPLICA IDENTITY USING INDEX; FULL on a table with a key",
        "by_index by_full",
        "CREATE TABLE by_index (a int NOT NULL, b int NOT NULL, v text, id serial PRIMARY KEY);"
        "CREATE UNIQUE INDEX by_index_b ON by_index (b);"
        "ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b;"
        "CREATE TABLE by_full (id int PRIMARY KEY, v text);"
        "ALTER TABLE by_full REPLICA IDENTITY FULL;"
        "INSERT INTO by_index SELECT i, i, 'v' FROM generate_series(1, 5) AS i;"
        "INSERT INTO by_full SELECT i, 'v' FROM generate_series(1, 5) AS i",
        "UPDATE by_index SET b = b + 10, a = 0 WHERE b < 3; DELETE FROM by_index WHERE b = 3;"
        "UPDATE by_full SET id = id + 10 WHERE id < 3; DELETE FROM by_full WHERE id = 3",
        "UPDATE by_index SET id = id + 100; UPDATE by_full SET v = v || id",
    ),
)

PARTITIONS = (
    case(
        7,
        "rows that move between partitions; new and nested partitions",
        "measures",
        "CREATE TABLE measures (id int, place text, v int, PRIMARY KEY (id, place))"
        " PARTITION BY LIST (place);"
        "CREATE TABLE measures_n PARTITION OF measures FOR VALUES IN ('n');"
        "CREATE TABLE measures_s PARTITION OF measures FOR VALUES IN ('s') PARTITION BY RANGE (id);"
        "CREATE TABLE measures_s1 PARTITION OF measures_s FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE measures_s2 PARTITION OF measures_s FOR VALUES FROM (10) TO (99);"
        "INSERT INTO measures SELECT i, 'n', i FROM generate_series(1, 9) AS i",
        "UPDATE measures SET place = 's' WHERE id < 4; UPDATE measures SET id = id + 10"
        " WHERE place = 's' AND id < 3",
        (
            "CREATE TABLE measures_e PARTITION OF measures FOR VALUES IN ('e');"
            "INSERT INTO measures VALUES (1, 'e', 1); UPDATE measures SET place = 'e' WHERE id > 7",
            "UPDATE measures SET v = v + 1; DELETE FROM measures WHERE id = 11",
        ),
        ("TRUNCATE measures; INSERT INTO measures VALUES (1, 's', 1)",),
    ),
    case(
        7,
        "a partition with rows is attached, detached, dropped or truncated",
        "parts",
        "CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (10);"
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);"
        "CREATE TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30);"
        # Columns in another order than the root's.
        "CREATE TABLE later (v text, id int NOT NULL PRIMARY KEY);"
        "INSERT INTO later SELECT 'late' || i, i FROM generate_series(30, 35) AS i;"
        "INSERT INTO parts SELECT i, 'p' || i FROM generate_series(1, 29) AS i",
        (
            "UPDATE parts SET v = v || '!' WHERE id < 3",
            "ALTER TABLE parts ATTACH PARTITION later FOR VALUES FROM (30) TO (40)",
            "UPDATE parts SET v = 'after' WHERE id IN (2, 33)",
        ),
        Round(
            (
                "DELETE FROM parts WHERE id = 11",
                "ALTER TABLE parts DETACH PARTITION parts_2",
                "INSERT INTO parts VALUES (36, 'x'); UPDATE parts_2 SET v = 'own'",
            ),
            ("parts", "parts_2"),
        ),
        (
            "TRUNCATE parts_1; INSERT INTO parts VALUES (4, 'only')",
            "DROP TABLE parts_3; UPDATE parts SET v = v || '?'",
        ),
    ),
    case(
        7,
        "maintenance of partitions: VACUUM FULL, UNLOGGED, retention by age",
        "kept kept_low kept_toast",
        "CREATE TABLE kept (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE kept_1 PARTITION OF kept FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE kept_2 PARTITION OF kept FOR VALUES FROM (10) TO (20);"
        "CREATE TABLE kept_3 PARTITION OF kept FOR VALUES FROM (20) TO (30);"
        "INSERT INTO kept SELECT i, 'k' || i FROM generate_series(0, 29) AS i;"
        "CREATE TABLE kept_low (id int PRIMARY KEY); INSERT INTO kept_low VALUES (1);"
        "CREATE TABLE kept_toast (id int PRIMARY KEY, v text);"
        f"INSERT INTO kept_toast VALUES (1, {big(1)})",
        (
            "UPDATE kept SET v = 'x' WHERE id = 3",
            "VACUUM FULL kept_1",
            "UPDATE kept SET v = 'y' WHERE id = 4; DELETE FROM kept WHERE id = 15",
            "CLUSTER kept_2 USING kept_2_pkey",
            "VACUUM FULL kept_low, kept_toast",
            "UPDATE kept_low SET id = 2; UPDATE kept_toast SET id = 2",
        ),
        (
            "ALTER TABLE kept_1 SET UNLOGGED",
            "INSERT INTO kept_1 SELECT 5, 'unlogged' ON CONFLICT (id) DO UPDATE SET v = 'unlogged'",
            "ALTER TABLE kept_1 SET LOGGED",
        ),
        (
            "CREATE TABLE kept_4 (LIKE kept INCLUDING ALL)",
            "ALTER TABLE kept ATTACH PARTITION kept_4 FOR VALUES FROM (30) TO (40)",
            "INSERT INTO kept VALUES (30, 'attached')",
            "VACUUM FULL kept_1",
            "UPDATE kept SET v = 'z' WHERE id = 1",
            "TRUNCATE kept_2; INSERT INTO kept VALUES (11, 'after')",
        ),
        (
            "DELETE FROM kept WHERE id = 22; ALTER TABLE kept DETACH PARTITION kept_1",
            "DROP TABLE kept_1; UPDATE kept SET v = 'detached' WHERE id > 25",
            "CREATE TABLE kept_5 PARTITION OF kept FOR VALUES FROM (40) TO (50)",
            "INSERT INTO kept VALUES (45, 'new')",
        ),
    ),
)


def _rows(name: str, columns: str, values: str, setting: str = "") -> str:
    return (
        f"CREATE TABLE {name} ({columns}); {setting}"
        f"INSERT INTO {name} SELECT {values} FROM generate_series(1, 8) AS i;"
    )


DEFINITIONS = (
    case(
        8,
        "a table takes the name of a dropped one, and a third table takes its old name",
        "heir_1 heir_2 heir_3 checkpoint",
        "CREATE TABLE heir_1 (id int PRIMARY KEY, v text); INSERT INTO heir_1 VALUES (1, 'one');"
        "CREATE TABLE heir_2 (id int PRIMARY KEY, v text); INSERT INTO heir_2 VALUES (2, 'two');"
        "CREATE TABLE heir_3 (id int PRIMARY KEY, v text); INSERT INTO heir_3 VALUES (3, 'three');"
        "CREATE TABLE checkpoint (id int PRIMARY KEY)",
        Round(("DROP TABLE heir_1; ALTER TABLE heir_2 RENAME TO heir_1",), ("heir_1", "heir_3")),
        Round(
            ("ALTER TABLE heir_3 RENAME TO heir_2; INSERT INTO heir_2 VALUES (4, 'four')",),
            ("heir_1", "heir_2"),
        ),
    ),
    case(
        8,
        "columns added with each kind of default, NOT NULL and identity",
        "add_one add_two",
        "CREATE DOMAIN word AS text DEFAULT 'w';"
        + _rows("add_one", "id int PRIMARY KEY, v text", "i, 'v' || i")
        + _rows(
            "add_two", "id int, v text", "i % 3, 'v'", "ALTER TABLE add_two REPLICA IDENTITY FULL;"
        ),
        (
            "UPDATE add_one SET v = 'before'; UPDATE add_two SET v = 'before' WHERE id = 1",
            "ALTER TABLE add_one ADD a int; ALTER TABLE add_two ADD a int",
            "UPDATE add_one SET a = id WHERE id < 4; UPDATE add_two SET a = 1 WHERE id = 2",
        ),
        (
            "ALTER TABLE add_one ADD b text DEFAULT 'const', ADD c float8 DEFAULT random()",
            "ALTER TABLE add_two ADD b int NOT NULL DEFAULT 7; DELETE FROM add_two WHERE id = 0",
            "INSERT INTO add_one VALUES (20, 'x')",
        ),
        "ALTER TABLE add_one ADD d word; ALTER TABLE add_two ADD n int GENERATED ALWAYS AS IDENTITY;"
        "UPDATE add_one SET d = 'own' WHERE id = 1",
    ),
    case(
        8,
        "several schema changes between the rows of one batch or transaction",
        "mid_batch",
        _rows("mid_batch", "id int PRIMARY KEY, a int, b text", "i, i, 'b' || i"),
        (
            "INSERT INTO mid_batch VALUES (20, 20, 'one')",
            "ALTER TABLE mid_batch ADD c text",
            "INSERT INTO mid_batch VALUES (21, 21, 'two', 'c')",
            "ALTER TABLE mid_batch RENAME a TO aa; ALTER TABLE mid_batch ALTER aa TYPE bigint",
            "INSERT INTO mid_batch VALUES (22, (2^40)::bigint, 'three', 'c')",
            "BEGIN; UPDATE mid_batch SET b = 'four' WHERE id = 20; ALTER TABLE mid_batch ADD d int;"
            "UPDATE mid_batch SET d = id; ALTER TABLE mid_batch DROP d; ALTER TABLE mid_batch"
            " RENAME b TO bb; INSERT INTO mid_batch VALUES (23, 5, 'five', NULL); COMMIT",
        ),
        (
            "ALTER TABLE mid_batch ADD e text; ALTER TABLE mid_batch DROP e",
            "ALTER TABLE mid_batch ADD e text; UPDATE mid_batch SET e = 'e' WHERE id > 20",
        ),
    ),
    case(
        8,
        "a dropped column, which stays in the destination",
        "drop_one",
        _rows("drop_one", "id int PRIMARY KEY, gone text, v int", "i, 'old' || i, i"),
        Round(
            (
                "UPDATE drop_one SET v = 0 WHERE id = 1",
                "ALTER TABLE drop_one DROP gone",
                "UPDATE drop_one SET v = v + 1 WHERE id < 4; INSERT INTO drop_one VALUES (50, 1)",
            ),
            dropped=("gone",),
        ),
    ),
    case(
        8,
        "a column dropped and added again, with the same type or another",
        "again",
        _rows("again", "id int PRIMARY KEY, a text, b text", "i, 'a' || i, 'b' || i"),
        (
            "ALTER TABLE again DROP a; ALTER TABLE again ADD a text",
            "UPDATE again SET a = 'new' WHERE id < 4",
        ),
        "ALTER TABLE again DROP b; ALTER TABLE again ADD b int; UPDATE again SET b = 1 WHERE id = 2",
    ),
    case(
        8,
        "columns renamed, swapped, or given the name of a dropped column",
        "renames",
        _rows("renames", "id int PRIMARY KEY, a text, b text, c text", "i, 'a', 'b', 'c'"),
        (
            "UPDATE renames SET a = 'before' WHERE id = 1; ALTER TABLE renames RENAME a TO aa",
            "UPDATE renames SET aa = 'after' WHERE id = 2; ALTER TABLE renames RENAME id TO key",
            "INSERT INTO renames VALUES (30, 'x', 'y', 'z'); DELETE FROM renames WHERE key = 5",
        ),
        "ALTER TABLE renames RENAME b TO t; ALTER TABLE renames RENAME c TO b;"
        "ALTER TABLE renames RENAME t TO c; UPDATE renames SET b = 'bb' WHERE key = 3",
        (
            "ALTER TABLE renames DROP b; ALTER TABLE renames RENAME c TO b;",
            "UPDATE renames SET b = 'third' WHERE key = 4",
        ),
    ),
    case(
        8,
        "a type widened, with and without a rewrite of the table",
        "widens",
        _rows(
            "widens",
            "id int PRIMARY KEY, v varchar(20), p numeric(6,2), s smallint, r real, t timestamp(3)",
            "i, 'v' || i, i / 7.0, i, i / 3.0, '2020-01-01'::timestamp + i * interval '1.2345 s'",
        ),
        (
            "UPDATE widens SET v = 'x' WHERE id = 1",
            "ALTER TABLE widens ALTER v TYPE varchar(40), ALTER p TYPE numeric(12,2)",
            "UPDATE widens SET v = repeat('y', 40), p = 9999999999.99 WHERE id = 2",
        ),
        (
            "ALTER TABLE widens ALTER s TYPE int, ALTER v TYPE text, ALTER t TYPE timestamp(6)",
            "UPDATE widens SET s = 100000 WHERE id = 3; INSERT INTO widens VALUES (40, 'n')",
        ),
        (
            "ALTER TABLE widens ALTER s TYPE bigint, ALTER r TYPE float8, ALTER p TYPE numeric",
            "UPDATE widens SET s = (2^40)::bigint, r = 0.1, p = 1e40 WHERE id = 4",
        ),
    ),
    case(
        8,
        "a type changed with a rewrite of the table",
        "rewrite rewrite_not",
        _rows("rewrite", "id int PRIMARY KEY, a int, b text, c numeric(8,2)", "i, i, i, i + 0.25")
        + _rows("rewrite_not", "id int PRIMARY KEY, v int", "i, i"),
        (
            "UPDATE rewrite SET a = 100 WHERE id = 1; UPDATE rewrite_not SET v = 0 WHERE id = 1",
            "ALTER TABLE rewrite ALTER a TYPE text USING 'n' || a, ALTER b TYPE int USING b::int",
            "INSERT INTO rewrite VALUES (20, 'x', 2, 3); INSERT INTO rewrite_not VALUES (20, 2)",
        ),
        (
            "ALTER TABLE rewrite ALTER c TYPE numeric(8,1)",
            "ALTER TABLE rewrite ALTER c TYPE int USING c * 2; UPDATE rewrite SET c = 7 WHERE id = 2",
            "VACUUM FULL rewrite_not",
            "CLUSTER rewrite_not USING rewrite_not_pkey",
        ),
    ),
    case(
        8,
        "an enum label renamed, also inside another type",
        "labelled labelled_within",
        """
CREATE TYPE shade AS ENUM ('red', 'green', 'blue');
CREATE DOMAIN some_shade AS shade; CREATE TYPE shade_range AS RANGE (subtype = shade);
CREATE TYPE paint AS (name text, shade shade);
CREATE TABLE labelled (id int PRIMARY KEY, s shade);
CREATE TABLE labelled_within (id int PRIMARY KEY, a shade[], d some_shade, r shade_range, p paint);
INSERT INTO labelled VALUES (1, 'red'), (2, 'green'), (3, 'blue');
INSERT INTO labelled_within VALUES (1, '{red,blue}', 'red', '[red,blue]', '(x,red)');
""",
        (
            "UPDATE labelled SET s = 'green' WHERE id = 1",
            "ALTER TYPE shade RENAME VALUE 'green' TO 'lime'; ALTER TYPE shade ADD VALUE 'pink'",
            "INSERT INTO labelled VALUES (4, 'lime')",
            "ALTER TYPE shade RENAME VALUE 'red' TO 'crimson'",
            "UPDATE labelled SET s = 'pink' WHERE id = 3",
        ),
        (
            "ALTER TYPE shade RENAME VALUE 'blue' TO 'x'",
            "ALTER TYPE shade RENAME VALUE 'crimson' TO 'blue'",
            "ALTER TYPE shade RENAME VALUE 'x' TO 'crimson'",
        ),
    ),
    case(
        8,
        "an enum label or attribute renamed or removed before any run saw it",
        "unseen_one unseen_two unseen_three unseen_four unseen_five",
        """
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE seen AS (x int, y text);
CREATE DOMAIN some_mood AS mood;
CREATE TABLE unseen_one (id int PRIMARY KEY, m mood, d some_mood); INSERT INTO unseen_one
  VALUES (1, 'sad', 'ok'); CREATE TABLE unseen_two (id int PRIMARY KEY, m mood[]);
INSERT INTO unseen_two VALUES (1, '{sad}'); CREATE TABLE unseen_three (id int PRIMARY KEY, s seen);
INSERT INTO unseen_three VALUES (1, '(1,a)'); CREATE TABLE unseen_four (id int PRIMARY KEY);
CREATE TABLE unseen_five (m mood, n int); ALTER TABLE unseen_five REPLICA IDENTITY FULL;
INSERT INTO unseen_five VALUES ('ok', 1), ('ok', 1);
""",
        (
            "ALTER TYPE mood ADD VALUE 'tmp'",
            "INSERT INTO unseen_one VALUES (2, 'tmp', 'tmp'); INSERT INTO unseen_two VALUES"
            " (2, '{tmp}'); INSERT INTO unseen_five VALUES ('tmp', 1)",
            "ALTER TYPE mood RENAME VALUE 'tmp' TO 'final'",
            "ALTER TYPE seen ADD ATTRIBUTE z text",
            "INSERT INTO unseen_three VALUES (2, '(1,a,secret)')",
            "ALTER TYPE seen DROP ATTRIBUTE z",
            "CREATE TYPE fresh AS (x int, z text); ALTER TABLE unseen_four ADD f fresh",
            "INSERT INTO unseen_four VALUES (2, '(1,secret)')",
            "ALTER TYPE fresh DROP ATTRIBUTE z",
        ),
        (
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'x'",
            "INSERT INTO unseen_one VALUES (3, 'x', 'x'); INSERT INTO unseen_five VALUES ('x', 3)",
            "ALTER TYPE mood RENAME VALUE 'x' TO 'sad'",
        ),
        (
            # The name of a new label that was renamed goes to another new one.
            "ALTER TYPE mood ADD VALUE 'new'",
            "INSERT INTO unseen_one VALUES (4, 'new', 'ok'); INSERT INTO unseen_five VALUES"
            " ('new', 4)",
            "ALTER TYPE mood RENAME VALUE 'new' TO 'older'",
            "ALTER TYPE mood ADD VALUE 'new'",
            "INSERT INTO unseen_one VALUES (5, 'new', 'new')",
        ),
    ),
    case(
        8,
        "a key or replica identity added, changed or dropped",
        "rekeyed ided gained",
        _rows("rekeyed", "id int PRIMARY KEY, other int NOT NULL UNIQUE, v int", "i, 100 - i, i")
        + _rows("ided", "id int PRIMARY KEY, other int NOT NULL UNIQUE, v int", "i, 100 - i, i")
        + _rows(
            "gained", "id int NOT NULL, v int", "i, i", "ALTER TABLE gained REPLICA IDENTITY FULL;"
        ),
        (
            "UPDATE rekeyed SET v = 0 WHERE id = 1",
            "ALTER TABLE rekeyed DROP CONSTRAINT rekeyed_pkey, ADD PRIMARY KEY (other)",
            "UPDATE rekeyed SET other = 500 WHERE id = 2; DELETE FROM rekeyed WHERE id = 3",
            "ALTER TABLE ided REPLICA IDENTITY USING INDEX ided_other_key",
            "UPDATE ided SET other = 500, id = 77 WHERE id = 2; DELETE FROM ided WHERE id = 3",
            "ALTER TABLE gained ADD PRIMARY KEY (id)",
            "UPDATE gained SET id = 50 WHERE id = 5; DELETE FROM gained WHERE id = 6",
        ),
        (
            "ALTER TABLE ided REPLICA IDENTITY FULL; UPDATE ided SET v = v + 1",
            "UPDATE ided SET id = id + 1000; ALTER TABLE gained DROP CONSTRAINT gained_pkey",
            "INSERT INTO gained VALUES (50, 1); UPDATE gained SET v = 9 WHERE id = 1",
        ),
    ),
    case(
        8,
        "a table renamed; two tables that swap names",
        "moved_new swap_a swap_b",
        _rows("moved", "id int PRIMARY KEY, v text", "i, 'm' || i")
        + _rows("swap_a", "id int PRIMARY KEY, v text", "i, 'a' || i")
        + _rows("swap_b", "id int PRIMARY KEY, v text", "i, 'b' || i"),
        Round(
            (
                "UPDATE moved SET v = 'before' WHERE id = 1; ALTER TABLE moved RENAME TO moved_new",
                "UPDATE moved_new SET v = 'after' WHERE id = 2",
            )
        ),
        (
            "UPDATE swap_a SET v = 'before' WHERE id = 1",
            "ALTER TABLE swap_a RENAME TO spare; ALTER TABLE swap_b RENAME TO swap_a;"
            "ALTER TABLE spare RENAME TO swap_b",
            "UPDATE swap_a SET v = 'after' WHERE id = 2; DELETE FROM swap_b WHERE id = 3",
        ),
    ),
    case(
        8,
        "a dropped table, which stays in the destination until another table takes its name",
        "reborn shop",
        _rows("reborn", "id int PRIMARY KEY, v text", "i, 'old' || i")
        + _rows("shop", "id int PRIMARY KEY, v text", "i, 'old' || i")
        + _rows("shop_new", "id bigint PRIMARY KEY, v text, n int", "i, 'new' || i, i"),
        Round(
            (
                "UPDATE reborn SET v = 'lost' WHERE id = 1; DROP TABLE reborn",
                "CREATE TABLE reborn (id int PRIMARY KEY, w int); INSERT INTO reborn VALUES (1, 1)",
                "UPDATE shop SET v = 'lost'; UPDATE shop_new SET v = 'before' WHERE id = 1",
                "DROP TABLE shop; ALTER TABLE shop_new RENAME TO shop",
                "UPDATE shop SET v = 'after' WHERE id = 2",
            ),
            dropped=("v",),
        ),
        "INSERT INTO reborn VALUES (2, 2); UPDATE reborn SET w = 9 WHERE id = 1;"
        "DELETE FROM shop WHERE id = 1; INSERT INTO shop VALUES (50, 'later', 1)",
    ),
)

NEW_TABLES = (
    case(
        9,
        "rows from before and after a table was published; every way to create a table",
        "new_one new_as new_parts new_heap",
        "",
        (
            "CREATE TABLE new_one (id int PRIMARY KEY, v text); INSERT INTO new_one VALUES (1, 'a')",
            "UPDATE new_one SET v = 'b'; INSERT INTO new_one VALUES (2, 'c')",
            "CREATE TABLE new_as AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 5) AS i",
            "ALTER TABLE new_as ADD PRIMARY KEY (id); DELETE FROM new_as WHERE id = 1",
            "CREATE TABLE new_parts (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);"
            "CREATE TABLE new_parts_1 PARTITION OF new_parts FOR VALUES FROM (0) TO (10);"
            "INSERT INTO new_parts VALUES (1, 1), (2, 2)",
            "CREATE TABLE new_heap (v int); INSERT INTO new_heap VALUES (1), (1);"
            "ALTER TABLE new_heap REPLICA IDENTITY FULL",
            "CREATE TABLE new_gone (id int PRIMARY KEY); INSERT INTO new_gone VALUES (1);"
            "DROP TABLE new_gone",
        ),
        "UPDATE new_one SET id = id + 10; UPDATE new_as SET v = 'w'; DELETE FROM new_heap WHERE ctid"
        " = (SELECT min(ctid) FROM new_heap); UPDATE new_parts SET v = 0; INSERT INTO new_parts"
        " VALUES (3, 3)",
    ),
)

MESSAGES = (
    case(
        12,
        "type and origin messages; logical messages in and out of transactions",
        "told",
        "CREATE TYPE told_kind AS ENUM ('a', 'b'); CREATE TYPE told_pair AS (x int, y told_kind);"
        "CREATE DOMAIN told_domain AS told_kind[];"
        "CREATE TABLE told (id int PRIMARY KEY, k told_kind, p told_pair, d told_domain);"
        "INSERT INTO told VALUES (1, 'a', '(1,a)', '{a,b}')",
        (
            "SELECT pg_logical_emit_message(false, 'heartbeat', 'alone')",
            "INSERT INTO told VALUES (2, 'b', '(2,b)', '{}');"
            "SELECT pg_logical_emit_message(true, 'app', 'within');"
            "UPDATE told SET k = 'b' WHERE id = 1",
            "SELECT pg_logical_emit_message(true, 'heartbeat', repeat('x', 10000))",
        ),
        (
            "SELECT pg_replication_origin_create('pgbronze_test')",
            "SELECT pg_replication_origin_session_setup('pgbronze_test')",
            "SELECT pg_replication_origin_xact_setup('0/1', now());"
            "INSERT INTO told VALUES (3, 'a', NULL, NULL); UPDATE told SET id = 4 WHERE id = 2",
            "SELECT pg_replication_origin_session_reset()",
            "SELECT pg_replication_origin_drop('pgbronze_test')",
            "ALTER TYPE told_kind ADD VALUE 'c'",
            "INSERT INTO told VALUES (5, 'c', '(1,c)', '{c}')",
        ),
    ),
)

GENERATED = (
    case(
        13,
        "stored generated columns, where PostgreSQL sends them",
        "computed",
        "CREATE TABLE computed (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2)"
        " STORED, v text, long text GENERATED ALWAYS AS (repeat(md5(v), 300)) STORED);"
        "ALTER TABLE computed ALTER long SET STORAGE EXTERNAL;"
        "INSERT INTO computed (id, n, v) SELECT i, i, i::text FROM generate_series(1, 9) AS i",
        "UPDATE computed SET n = 7 WHERE id = 1; UPDATE computed SET id = 50 WHERE id = 2;"
        "INSERT INTO computed VALUES (20, NULL, DEFAULT, 'x'); DELETE FROM computed WHERE id = 3",
        "ALTER TABLE computed ADD square int GENERATED ALWAYS AS (n * n) STORED;"
        "UPDATE computed SET v = 'y' WHERE id = 4",
    ),
)

TRANSACTIONS = (
    case(
        14,
        "a huge transaction with subtransactions and savepoints that are rolled back",
        "huge",
        "CREATE TABLE huge (id int PRIMARY KEY, v text); INSERT INTO huge SELECT i, 'old'"
        " FROM generate_series(1, 1000) AS i",
        "BEGIN; INSERT INTO huge SELECT i, md5(i::text) FROM generate_series(1001, 40000) AS i;"
        "SAVEPOINT a; DELETE FROM huge WHERE id % 2 = 0; ROLLBACK TO a;"
        "SAVEPOINT b; UPDATE huge SET v = 'new' WHERE id <= 500; SAVEPOINT c;"
        "UPDATE huge SET id = -id WHERE id < 100; ROLLBACK TO c; UPDATE huge SET v = 'kept'"
        " WHERE id = 1; RELEASE b; DELETE FROM huge WHERE id > 39000; COMMIT",
        (
            "BEGIN; UPDATE huge SET v = 'never'; ROLLBACK",
            # Many subtransactions.
            "DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN UPDATE huge SET v = 'sub' || i WHERE id = i;"
            " IF i % 3 = 0 THEN RAISE EXCEPTION 'undone'; END IF;"
            " EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
        ),
    ),
    case(
        14,
        "hundreds of tiny transactions",
        "tiny",
        "CREATE TABLE tiny (id int PRIMARY KEY, v int)",
        "DO $$ BEGIN FOR i IN 1..300 LOOP INSERT INTO tiny VALUES (i, 0); COMMIT; END LOOP; END $$",
        "DO $$ BEGIN FOR i IN 1..150 LOOP UPDATE tiny SET v = i, id = 5000 + i WHERE id = i;"
        " COMMIT; DELETE FROM tiny WHERE id = 301 - i; COMMIT; END LOOP; END $$",
    ),
)

CASES = (
    *TOAST, *KEYS, *ORDER, *TRUNCATES, *KEYLESS, *PARTITIONS, *DEFINITIONS, *NEW_TABLES, *MESSAGES,
    *GENERATED, *TRANSACTIONS,
)  # fmt: skip

ROUNDS = max(len(case.rounds) for case in CASES)
