"""List which test proves which promise: `python -m tests.support.evidence` writes docs/explanation/evidence.md.

Types and hard cases come from the tables that parametrize the tests. Every other claim names its tests here.
`tests/unit/test_evidence.py` fails if the page is stale, a test does not exist, or a promise has no test.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutation.score import FILES, score
from tests.support.hard_cases import CASES as HARD_CASES
from tests.support.type_matrix import CASES as TYPE_CASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/evidence.md"

INTEGRATION, UNIT = "tests/integration", "tests/unit/cdc_core"
END = f"{INTEGRATION}/end_to_end"
PG = f"{INTEGRATION}/pgoutput"
CLI = f"{INTEGRATION}/cli"
RUNS = f"{UNIT}/use_cases"

TYPES_TEST = f"{END}/test_types.py::test_every_value_is_the_sources"
ODD_TEST = f"{END}/test_types.py::test_what_cannot_be_held_is_null_and_recorded"
HARD_TEST = f"{END}/test_hard_cases.py::test_the_destination_equals_the_source"

#: The rows of the contract's table of types, with the columns of the type matrix that cover them.
TYPES: Mapping[str, tuple[str, Sequence[str]]] = {
    "boolean": ("BOOLEAN", ["boolean"]),
    "smallint, integer, bigint": ("SMALLINT, INT, BIGINT", ["smallint", "integer", "bigint"]),
    "real, double precision": ("FLOAT, DOUBLE, bit for bit", ["real", "double precision"]),
    "numeric(p,s), p <= 38, 0 <= s <= p": (
        "DECIMAL(p,s)",
        ["numeric(12,2)", "numeric(38,0)", "numeric(38,38)", "numeric(38,10)", "numeric(5,5)",
         "numeric(1,0)"],
    ),
    "numeric without precision, p > 38, s < 0 or s > p": (
        "STRING",
        ["numeric", "numeric(39,2)", "numeric(1000,500)", "numeric(5,-2)", "numeric(3,5)"],
    ),
    "text, varchar, char(n), name, citext": (
        "STRING",
        ["text", "character varying", "character varying(10)", "character(5)", "bpchar", "name",
         '"char"', "citext"],
    ),
    "enum, uuid, xml": ("STRING", ["mood", "uuid", "xml"]),
    "inet, cidr, macaddr": ("STRING", ["inet", "cidr", "macaddr", "macaddr8"]),
    "bit, money, tsvector": (
        "STRING", ["bit(3)", "bit varying", "bit varying(5)", "money", "tsvector", "tsquery"],
    ),
    "ranges": (
        "STRING",
        ["int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange", "textrange"],
    ),
    "multiranges": (
        "STRING",
        ["int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange",
         "datemultirange"],
    ),
    "geometric": (
        "STRING", ["point", "line", "lseg", "box", "path", "polygon", "circle"],
    ),
    "composite, hstore": ("STRING", ["pair", "hstore"]),
    "interval, time, timetz": (
        "STRING",
        ["interval", "interval day to second(3)", "time", "time(0)", "timetz"],
    ),
    "any other type": (
        "STRING",
        ["jsonpath", "pg_lsn", "oid", "xid", "xid8", "cid", "tid", "regclass", "regtype",
         "regproc", "regconfig", "regrole", "regoperator", "regprocedure", "regnamespace", "refcursor", "int2vector", "oidvector", "txid_snapshot", "pg_snapshot", "aclitem"],
    ),
    "bytea": ("BINARY", ["bytea"]),
    "date": ("DATE", ["date"]),
    "timestamp": ("TIMESTAMP_NTZ", ["timestamp", "timestamp(0)"]),
    "timestamptz": ("TIMESTAMP", ["timestamptz", "timestamptz(3)"]),
    "json, jsonb": ("STRING", ["json", "jsonb"]),
    "arrays": (
        "STRING holding JSON",
        ["integer[]", "boolean[]", "double precision[]", "numeric[]", "numeric(5,2)[]", "text[]",
         "mood[]", "box[]", "ids[]", "pair[]"],
    ),
    "domain": ("as its base type", ["positive", "more_positive", "price", "ids"]),
}  # fmt: skip

#: The headings of the hard cases, each with its tests in addition to the scripts in `tests.support.hard_cases`.
CASES: Mapping[int, tuple[str, Sequence[str]]] = {
    1: ("Unchanged TOAST", [f"{END}/test_types.py::test_long_values_were_out_of_line"]),
    2: ("Key update", []),
    3: (
        "Order",
        [f"{UNIT}/fold/test_fold.py::test_the_last_event_of_a_key_counts_whatever_their_order"],
    ),
    4: (
        "Delete of an unknown key; a batch applied twice",
        [
            "tests/contracts/destination_contract.py::test_an_older_change_does_not_undo_a_newer_one",
            f"{RUNS}/test_convergence.py::test_a_stale_checkpoint_replays_without_harm",
        ],
    ),
    5: (
        "TRUNCATE",
        ["tests/contracts/destination_contract.py::test_truncation_takes_what_is_older"],
    ),
    6: (
        "Keyless tables",
        [f"{PG}/test_catalog.py::test_what_cannot_be_streamed_is_named_and_not_published"],
    ),
    7: ("Partitions", [f"{PG}/test_catalog.py::test_partitioned_changes_come_by_the_root"]),
    8: (
        "DDL while streaming",
        [
            f"{END}/test_equality.py::test_definitions_follow_the_source",
            f"{END}/test_equality.py::test_names_follow_the_source",
            f"{RUNS}/test_convergence.py::test_a_crash_while_a_schema_change_is_followed_is_cured",
            f"{RUNS}/test_convergence.py::test_a_frozen_table_is_set_aside_and_the_others_go_on",
            f"{END}/test_set_aside.py::test_a_frozen_definition",
        ],
    ),
    9: ("New tables", [f"{RUNS}/test_convergence.py::test_a_new_table_is_read_and_followed"]),
    10: (
        "Slot and state disagree",
        [
            f"{UNIT}/slot/test_continuity.py::test_every_break_names_what_happened_and_its_cure",
            f"{CLI}/test_bad_states.py::test_slot_dropped",
            f"{CLI}/test_bad_states.py::test_slot_recreated",
            f"{CLI}/test_bad_states.py::test_slot_of_another_database",
            f"{CLI}/test_bad_states.py::test_slot_setting_changed",
            f"{CLI}/test_slot_states.py::test_a_slot_whose_wal_is_gone",
            f"{END}/test_timelines.py::test_restored_copies_and_promoted_servers",
        ],
    ),
    11: (
        "Idle databases",
        [
            f"{PG}/test_readers.py::test_an_idle_read_advances_past_other_databases_wal",
            f"{CLI}/test_slot_states.py::test_what_other_databases_write_does_not_pin_wal",
            f"{RUNS}/test_follow.py::test_an_idle_position_is_made_durable_now_and_then",
        ],
    ),
    12: (
        "Every message kind",
        [
            "tests/unit/adapters/pgoutput/wire/test_wire_decoder.py"
            "::test_messages_without_rows_are_counted",
            "tests/unit/adapters/pgoutput/wire/test_wire_round_trip.py"
            "::test_damaged_bytes_are_refused_or_decoded",
        ],
    ),
    13: (
        "Row filters and column lists; a role that owns nothing; generated columns",
        [
            f"{END}/test_least_privilege.py::test_row_filters_and_column_lists_of_a_dba",
            f"{END}/test_least_privilege.py::test_what_the_page_grants_is_enough",
            f"{PG}/test_catalog.py::test_generated_columns_come_where_postgres_sends_them",
            f"{PG}/test_catalog.py::test_row_level_security_is_never_a_silent_filter",
        ],
    ),
    14: (
        "One huge transaction, many tiny ones",
        [
            f"{PG}/test_large_transactions.py::"
            "test_large_transactions_tell_the_same_in_blocks_and_whole",
            f"{PG}/test_readers.py::test_a_transaction_beyond_the_limit_arrives_in_parts",
            f"{PG}/test_readers.py::test_a_server_that_refuses_bulk_is_streamed",
        ],
    ),
    15: (
        "Snapshot and CDC convert alike",
        [
            TYPES_TEST,
            f"{PG}/test_snapshot.py::test_every_type_reads_the_same",
            f"{PG}/test_connection.py::test_values_do_not_depend_on_the_servers_defaults",
        ],
    ),
}

#: The contract's guarantees, and its promises about crashes and the source.
CLAIMS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "Guarantees": {
        "1. Same as the source": [
            f"{END}/test_equality.py::test_rounds_of_cdc_end_equal",
            f"{END}/test_soak.py::test_rounds_of_a_soak_end_equal",
            f"{RUNS}/test_convergence.py::test_stream_converges_whatever_the_workload",
        ],
        "2. Nothing lost, nothing twice": [
            f"{END}/test_equality.py::test_killed_at_any_moment_and_run_again_is_equal",
            f"{RUNS}/test_crashes.py::test_a_fault_at_any_call_is_cured_by_running_again",
            f"{RUNS}/test_convergence.py::test_a_crash_at_any_port_call_is_cured_by_running_again",
        ],
        "3. The slot follows the data": [
            f"{END}/test_equality.py::test_the_slot_follows_the_data",
            f"{RUNS}/test_convergence.py::test_the_slot_never_passes_the_checkpoint",
            f"{UNIT}/slot/test_continuity.py::test_only_what_is_durable_may_be_confirmed",
        ],
        "4. The source is safe": [
            f"{PG}/test_catalog.py::test_what_cannot_be_streamed_is_named_and_not_published",
            f"{PG}/test_catalog.py::test_our_ddl_does_not_wait_for_long",
            f"{END}/test_locks.py::test_a_full_load_beside_an_application_and_migrations",
            f"{PG}/test_snapshot_locks.py::test_nothing_stays_locked_once_it_was_read",
            f"{END}/test_least_privilege.py::test_what_the_page_grants_is_enough",
        ],
        "5. Readers see whole rows": [
            f"{INTEGRATION}/databricks/test_transaction.py"
            "::test_no_reader_sees_a_table_without_the_other",
        ],
        "6. One writer": [
            f"{PG}/test_lock.py::test_a_second_writer_ends_at_once_naming_the_first",
            f"{CLI}/test_slot_states.py::test_the_second_of_two_runs_ends_at_once",
        ],
        "7. Followed or refused": [
            HARD_TEST,
            f"{END}/test_set_aside.py::test_a_table_that_may_not_be_read",
            f"{PG}/test_catalog.py::test_fingerprints_tell_what_leaves_no_row_events",
            f"{PG}/test_catalog.py::test_fingerprints_tell_that_a_label_was_renamed",
        ],
        "8. Loud, never silent": [
            f"{UNIT}/slot/test_continuity.py::test_every_break_names_what_happened_and_its_cure",
            f"{PG}/test_readers.py::test_a_dropped_slot_is_history_lost",
            f"{PG}/test_readers.py::test_a_publication_that_was_missing_is_history_lost",
        ],
    },
    "Crashes": {
        "The process group is killed": [
            f"{END}/test_equality.py::test_killed_at_any_moment_and_run_again_is_equal",
            f"{INTEGRATION}/destination/test_crashes.py::test_killed_at_random_moments",
            f"{END}/test_killed_snapshot.py::test_a_killed_snapshot_continues",
        ],
        "A killed snapshot keeps the parts of a large table whose rows are unchanged": [
            f"{END}/test_killed_snapshot.py::test_a_killed_snapshot_continues_within_a_table",
            f"{PG}/test_snapshot_parts.py::test_vacuum_changes_no_rows",
            f"{UNIT}/full_load/test_resume.py::test_any_changes_between_any_kills",
        ],
        "PostgreSQL restarts immediately": [
            f"{END}/test_crashes.py::test_a_server_that_restarts_at_once",
        ],
        "Connections are cut": [f"{END}/test_crashes.py::test_connections_cut_at_any_byte"],
        "The disk is full": [f"{END}/test_crashes.py::test_a_disk_that_is_full"],
        "The working folder is lost": [
            f"{END}/test_crashes.py::test_a_working_folder_that_is_lost",
        ],
        "A table is dropped at the destination": [
            f"{END}/test_lost_tables.py::test_a_table_dropped_at_the_destination",
        ],
        "The clock is set back": [
            f"{INTEGRATION}/destination/test_failures.py"
            "::test_the_newest_checkpoint_is_found_though_the_clock_was_set_back",
        ],
    },
    "History": {
        "Every change is an image, whole and in order, with kills": [
            f"{END}/test_history.py::test_every_image_is_the_one_that_the_database_recorded",
            f"{RUNS}/test_history.py::test_every_change_is_an_image_and_every_lsn_a_copy",
            f"{RUNS}/test_history.py::test_a_crash_at_any_port_call_leaves_history_exact",
            f"{RUNS}/test_history.py::test_parts_of_large_transactions_leave_history_exact",
        ],
        "The versions are the table at every LSN": [
            f"{END}/test_history.py::test_every_image_is_the_one_that_the_database_recorded",
            f"{RUNS}/test_history.py::test_every_change_is_an_image_and_every_lsn_a_copy",
        ],
        "Full loads, repairs and removed partitions write the difference": [
            f"{RUNS}/test_history.py::test_a_full_load_that_crashed_leaves_the_difference",
            f"{RUNS}/test_history.py::test_a_repair_shows_in_history_as_the_difference",
            f"{END}/test_history.py"
            "::test_rows_of_a_detached_partition_are_deletes_and_nothing_is_read_again",
        ],
        "Rows that soft deletes keep do not depend on where batches are cut, nor on what is sent twice": [
            f"{RUNS}/test_soft_deletes.py::test_marked_rows_do_not_depend_on_the_cuts",
            f"{RUNS}/test_soft_deletes.py::test_marked_rows_do_not_depend_on_the_parts",
            f"{RUNS}/test_soft_deletes.py::test_a_crash_at_any_port_call_marks_the_same_rows",
            "tests/unit/adapters/dlt_destination/duckdb/test_soft_deletes.py"
            "::test_rows_are_marked_as_by_one_change_at_a_time",
            "tests/contracts/soft_delete_contract.py::test_a_deleted_row_has_its_last_values",
        ],
        "A name that a history needs sets one table aside, and destroys nothing": [
            f"{END}/test_history.py::test_names_that_a_history_needs_set_aside_one_table_alone",
            f"{RUNS}/test_history_conflicts.py"
            "::test_a_table_that_is_renamed_to_the_name_of_a_history_waits_where_it_was",
            f"{RUNS}/test_history_conflicts.py"
            "::test_a_renamed_table_whose_history_would_replace_a_table_waits_where_it_was",
            f"{RUNS}/test_history_conflicts.py::test_a_history_that_was_switched_off_is_not_replaced",
        ],
        "Each query on the pages is right": [
            f"{END}/test_history_pages.py::test_history",
            f"{END}/test_history_pages.py::test_the_flow_of_a_databricks_pipeline",
            f"{INTEGRATION}/spark/test_auto_cdc.py::test_the_pages_flow_fits_the_log",
            f"{END}/test_history_pages.py::test_soft_deletes",
            f"{END}/test_history_pages.py::test_privacy",
        ],
    },
    "Safe on the source": {
        "Least privilege": [
            f"{END}/test_least_privilege.py::test_what_the_page_grants_is_enough",
            f"{END}/test_least_privilege.py::test_a_role_that_manages_the_publication",
        ],
        "A DBA's publication is used as it is": [
            f"{PG}/test_catalog.py::test_a_publication_of_another_owner_is_used_as_it_is",
            f"{CLI}/test_bad_states.py::test_publication_of_a_dba_is_used_and_its_absence_is_named",
        ],
        "A table that left the publication for a time is read again": [
            f"{END}/test_publication.py::test_changes_that_were_not_published",
            f"{PG}/test_catalog.py::test_fingerprints_tell_that_a_table_was_published_otherwise",
        ],
        "Limits of the server and the role": [
            f"{PG}/test_connection.py::test_values_do_not_depend_on_the_servers_defaults",
            f"{PG}/test_catalog.py::test_our_ddl_does_not_wait_for_long",
        ],
        "No password and no row's value in any output": [
            f"{CLI}/test_bad_states.py::test_runs_that_work_leak_nothing_either",
            f"{CLI}/test_bad_states.py::test_connection_refused",
            f"{CLI}/test_bad_states.py::test_destination_cannot_hold_a_value",
            f"{CLI}/test_bad_states.py::test_table_that_breaks_a_constraint_of_the_simulation",
            "tests/unit/adapters/pgoutput/wire/test_wire_decoder.py::test_no_error_contains_a_value",
        ],
        "TLS": [
            f"{INTEGRATION}/tls/test_tls.py::test_whole_runs_with_the_certificate_verified",
            f"{INTEGRATION}/tls/test_tls.py"
            "::test_a_certificate_that_is_not_trusted_is_a_wrong_setting",
            f"{INTEGRATION}/tls/test_tls.py::test_a_stream_by_tls_loses_and_waits_for_nothing",
        ],
    },
    "[Model and simulation](proof.md)": {
        "Every reachable state of the protocol's model keeps every promise": [
            "tests/model/test_model.py::test_every_reachable_state_keeps_every_promise",
            "tests/model/test_model.py::test_running_again_always_cures",
            "tests/model/test_model.py::test_a_full_load_is_of_one_moment",
        ],
        "Without any of its guards it does not": [
            "tests/model/test_model.py::test_no_guard_can_be_spared",
        ],
        "The code does what the model does": [
            "tests/model/test_model.py::test_the_code_does_what_the_model_does",
            "tests/model/test_model.py"
            "::test_code_without_a_guard_follows_the_trace_to_the_violation",
        ],
        "Random histories of runs, faults and kills end equal": [
            "tests/simulation/test_simulation.py::test_every_seed_ends_equal",
            "tests/simulation/test_simulation.py::test_every_interesting_situation_was_reached",
            "tests/simulation/test_simulation.py::test_a_missing_guard_is_noticed",
        ],
    },
    "Check and verify": {
        "`check` finds problems before they do harm, and its cures work": [
            f"{UNIT}/check/test_source_rules.py::test_what_is_wrong_is_found_with_its_cure",
            f"{INTEGRATION}/verify/test_check.py::test_every_cure_for_a_role_without_rights_works",
            f"{INTEGRATION}/verify/test_check.py::test_a_provider_is_recognized_by_the_servers_settings",
            f"{INTEGRATION}/verify/test_check.py"
            "::test_the_destination_is_written_to_and_left_as_it_was",
        ],
        "`verify` names the keys that differ, and `--repair` rewrites only those rows": [
            f"{INTEGRATION}/verify/test_verify.py"
            "::test_loaded_rows_are_equal_and_damaged_rows_are_named_and_repaired",
            f"{RUNS}/test_verify_parity.py::test_differing_keys_are_named_and_repaired",
        ],
        "Bad settings, arguments and states": [
            "tests/unit/entrypoints/test_bad_input.py::test_bad_source_setting",
            "tests/unit/entrypoints/test_bad_input.py::test_bad_setting",
            "tests/unit/entrypoints/test_bad_input.py::test_bad_file",
            "tests/unit/entrypoints/test_bad_input.py::test_bad_arguments",
            f"{CLI}/test_bad_states.py::test_connection_refused",
        ],
    },
    "Logins and recordings": {
        "Passwords may change while a run follows": [
            f"{CLI}/test_logins.py::test_the_password_command_runs_for_each_connection",
            f"{CLI}/test_logins.py::test_a_rejected_password_is_read_again_if_it_changed",
            f"{CLI}/test_logins.py::test_a_secret_that_rotates_while_a_run_follows",
        ],
        "A recording replays the hard cases without the source, with masked values too": [
            f"{INTEGRATION}/recording/test_record_replay.py::test_the_replay_equals_the_source",
            f"{INTEGRATION}/recording/test_record_replay.py"
            "::test_masked_values_are_equal_where_the_originals_are",
        ],
        "A masked recording has no value of the source; no recording has a secret": [
            f"{CLI}/test_recording.py::test_a_masked_file_has_no_value",
            f"{CLI}/test_recording.py::test_the_file_has_no_secret_and_no_address",
        ],
    },
}


def named_tests() -> Iterator[str]:
    """Every test that the page names, as `path::function`."""
    yield from (TYPES_TEST, ODD_TEST, HARD_TEST)
    for _, tests in CASES.values():
        yield from tests
    for claims in CLAIMS.values():
        for tests in claims.values():
            yield from tests


def functions(path: Path) -> set[str]:
    """Names of all functions and methods of a file."""
    return {
        node.name for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }  # fmt: skip


def page() -> str:
    lines = [
        "# Evidence",
        "",
        "This page lists the tests that prove the [guarantees](../../README.md#what-it-guarantees) and the other promises.",
        "`python -m tests.support.evidence` writes it from the tables that parametrize the tests. A test fails if the page is",
        "stale or names a test that does not exist. Integration tests use a real PostgreSQL;",
        "`python -m tests.support.postgres_matrix` runs them on versions 14 to 18.",
        "",
        "## Types",
        "",
        "Each type has a table of its own, and is also tested in a domain, in an array and without a key. The values include the",
        "limits of the type, values beyond them, and values that PostgreSQL stores out of line. They arrive through the snapshot, an",
        "insert, an update, an update of another column, a change of the key, and a delete, and are loaded into DuckDB, Delta and",
        "Databricks. The test compares every cell with PostgreSQL's own text:",
        f"{_link(TYPES_TEST)}.",
        f"Values that do not fit their destination type: {_link(ODD_TEST)}.",
        "",
        "| PostgreSQL | destination | columns of the matrix |",
        "|---|---|---|",
    ]
    for row, (target, declarations) in TYPES.items():
        columns = ", ".join(f"`{declaration}`" for declaration in declarations)
        lines.append(f"| {row} | {target} | {columns} |")
    lines += [
        "| generated columns | as their type, from PostgreSQL 18 on | hard case 13 |",
        "",
        "## Hard cases",
        "",
        "Each case is a set of SQL scripts. They all run together, on DuckDB and Delta, with small batches and with large ones. After",
        f"every run, each table is compared cell by cell: {_link(HARD_TEST)}.",
        "",
        "| case | scripts | further tests |",
        "|---|---|---|",
    ]
    for number, (title, tests) in CASES.items():
        scripts = "<br>".join(c.title for c in HARD_CASES if c.number == number) or "-"
        further = ", ".join(map(_link, tests)) or "-"
        lines.append(f"| {number}. {title} | {scripts} | {further} |")
    for heading, claims in CLAIMS.items():
        lines += ["", f"## {heading}", "", "| claim | tests |", "|---|---|"]
        lines += [f"| {claim} | {', '.join(map(_link, t))} |" for claim, t in claims.items()]
    lines += [
        "",
        "## Mutants",
        "",
        "`make mutate` changes the code of the core's rules in one place at a time; the unit tests of that file must notice",
        "([proof](proof.md#mutants)).",
        "",
        "| file | mutants | noticed | score |",
        "|---|---|---|---|",
    ]
    unnoticed = []
    for file in FILES:
        found = score(file)
        lines.append(
            f"| [{file.split('/')[-1]}](../../{file}) | {found.mutants} | {found.noticed} | {found.percent} % |"
        )
        unnoticed += [(file.split("/")[-1], *each) for each in found.survivors.items() if each[1]]
    if unnoticed:
        lines += ["", "Mutants that no test can notice:", ""]
        lines += [f"- {file}, {mutant}: {why}." for file, mutant, why in unnoticed]
    return "\n".join([*lines, ""])


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{name}](../../{path})"


def main() -> None:
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(TYPE_CASES)} types, {len(HARD_CASES)} scripts")


if __name__ == "__main__":
    main()
