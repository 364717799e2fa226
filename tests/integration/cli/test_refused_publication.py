"""PostgreSQL refuses DDL on the publication: an event trigger of the provider's, another owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Shop

#: Refuses all DDL on publications, or that on one table, with an SQLSTATE of its own.
TRIGGER = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_query() LIKE '%{what}%' AND session_user = 'keeper' THEN
    RAISE EXCEPTION 'publications are managed by the platform team' USING ERRCODE = '{state}';
  END IF;
END $$;
CREATE EVENT TRIGGER guard ON {when}
  WHEN TAG IN ('CREATE PUBLICATION', 'ALTER PUBLICATION', 'DROP PUBLICATION')
  EXECUTE FUNCTION refuse();
"""


@pytest.fixture
def keeper(shop: Shop) -> Shop:
    """Run by a role that may create publications and owns the tables."""
    shop.sql(
        "DROP ROLE IF EXISTS keeper; CREATE ROLE keeper LOGIN REPLICATION PASSWORD 'pw';"
        f"GRANT CREATE ON DATABASE {shop.database} TO keeper;"
        "GRANT CREATE, USAGE ON SCHEMA public TO keeper;"
        "GRANT EXECUTE ON FUNCTION pg_control_system() TO keeper;"
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);"
        "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1);"
        "ALTER TABLE a OWNER TO keeper; ALTER TABLE b OWNER TO keeper;"
    )
    shop.environ["SOURCES__PG_REPLICATION__CREDENTIALS"] = shop.server.database_dsn(
        shop.database, "keeper", "pw"
    )
    yield shop
    shop.sql("DROP EVENT TRIGGER IF EXISTS guard; DROP PUBLICATION IF EXISTS dlt_cdc_pub")
    shop.sql("DROP OWNED BY keeper CASCADE; DROP ROLE keeper")


def trigger(shop: Shop, what: str, state: str = "P0001", when: str = "ddl_command_end") -> None:
    shop.sql(TRIGGER.format(what=what, state=state, when=when))


def statement_in(line: str) -> str:
    """The statement that an operator is to run."""
    return line.partition("lets through: ")[2].partition("; then run again")[0]


@pytest.mark.parametrize(
    ("state", "when"),
    [("P0001", "ddl_command_start"), ("42501", "ddl_command_end"), ("XX000", "ddl_command_end")],
)
def test_a_new_table_that_an_event_trigger_refuses(keeper: Shop, state: str, when: str) -> None:
    keeper.run("snapshot")
    trigger(keeper, "ALTER PUBLICATION", state, when)
    keeper.sql(
        "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1);"
        "ALTER TABLE late OWNER TO keeper; INSERT INTO a VALUES (2); INSERT INTO b VALUES (2)"
    )
    told = keeper.run("cdc", code=3)
    assert "public.late (PostgreSQL refuses adding it" in told.line
    assert f"managed by the platform team (SQLSTATE {state})" in told.line
    assert "every other table is loaded" in told.line
    assert "event trigger's function refuse" in told.line
    for name in ("a", "b"):
        assert keeper.lake_sql(f"SELECT max(id) FROM bronze.{name}") == [(2,)]
    told = keeper.run("snapshot", code=3)
    assert "public.late (PostgreSQL refuses adding it" in told.line
    # A superuser may; then it is followed as any new table.
    assert statement_in(told.line) == (
        'ALTER PUBLICATION "dlt_cdc_pub" ADD TABLE ONLY "public"."late"'
    )
    keeper.sql(statement_in(told.line))
    keeper.run("cdc")
    keeper.sql("INSERT INTO late VALUES (2)")
    keeper.run("cdc")
    assert keeper.lake_sql("SELECT count(*) FROM bronze.late") == [(2,)]


def test_a_publication_that_an_event_trigger_refuses(keeper: Shop) -> None:
    trigger(keeper, "PUBLICATION")
    told = keeper.run("snapshot", code=3)
    assert "PostgreSQL refuses creating publication 'dlt_cdc_pub': publications are" in told.line
    assert "tables' owner" not in told.line
    assert keeper.sql("SELECT FROM pg_publication") == []
    keeper.sql(statement_in(told.line))
    keeper.run("snapshot")
    keeper.run("cdc")
    told = keeper.run("cleanup", "--yes")
    assert "publication dlt_cdc_pub belongs to another role and stays" in told.error


def test_one_table_of_a_new_publication_is_refused(keeper: Shop) -> None:
    """By an event trigger, and by PostgreSQL, as it is another role's."""
    trigger(keeper, '."b"')
    keeper.sql("CREATE TABLE c (id int PRIMARY KEY); GRANT SELECT ON c TO keeper")
    told = keeper.run("snapshot", code=3)
    assert "public.b (PostgreSQL refuses adding it" in told.line
    assert "public.c (PostgreSQL refuses adding it" in told.line
    assert "must be owner of table c (SQLSTATE 42501)" in told.line
    assert (
        'run as owner of the tables and the publication: ALTER PUBLICATION "dlt_cdc_pub" '
        'ADD TABLE ONLY "public"."c"'
    ) in told.line
    assert keeper.lake_sql("SELECT id FROM bronze.a") == [(1,)]
    keeper.sql("INSERT INTO a VALUES (2)")
    keeper.run("cdc", code=3)
    assert keeper.lake_sql("SELECT max(id) FROM bronze.a") == [(2,)]
    keeper.sql("DROP EVENT TRIGGER guard; ALTER TABLE c OWNER TO keeper")
    keeper.run("cdc")
    assert keeper.lake_sql(
        "SELECT (SELECT count(*) FROM bronze.b), (SELECT count(*) FROM bronze.c)"
    ) == [(1, 0)]


def test_a_table_that_cannot_be_taken_out(keeper: Shop) -> None:
    """Without its key it should leave the publication, which the trigger refuses."""
    keeper.run("snapshot")
    trigger(keeper, "DROP TABLE")
    keeper.sql("ALTER TABLE b DROP CONSTRAINT b_pkey; INSERT INTO a VALUES (2)")
    told = keeper.run("cdc")
    assert "PostgreSQL refuses a change of the publication: publications are" in told.error
    assert keeper.lake_sql("SELECT max(id) FROM bronze.a") == [(2,)]
