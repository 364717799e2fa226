"""Each refusal at each place where it can strike: its words, its cure, its exit code; and what a
token that ends, or an address that does, costs a run: nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import CdcError, SettingsError
from tests.contracts.destination_contract import checkpoint, content
from tests.integration.databricks.conftest import PATIENCE
from tests.integration.databricks.test_faults import ROWS, changes, snapshot
from tests.integration.warehouse.refusals import (
    ADDRESSES,
    NETWORKS,
    PRIVILEGES,
    STORAGES,
    TOKENS,
    WAREHOUSES,
    gateway,
)
from tests.support.spark_engine import ENGINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cdc_core.ports.destination import Destination
    from tests.integration.warehouse.client import Warehouse

FOREVER = 10_000

#: Of each kind what the line says, and the exit code.
WORDS = {
    "token invalid": (r"refused the credentials; correct .*access_token", 2),
    "token ending": (r"refused the credentials \(the token has ended\)", 2),
    "token missing": (r"refused the credentials", 2),
    "address blocked": (r"network in \(203\.0\.113\.7\).*IP access list", 1),
    "network refused": (r"does not let this network in;.*private endpoint", 1),
    "public access refused": (r"does not let this network in;.*private endpoint", 1),
    "warehouse not allowed": (r"may not use the SQL warehouse; grant it CAN USE", 3),
    "warehouse gone": (r"no such warehouse; correct .*http_path", 2),
    "warehouse stopped": (r"stopped and cannot be started; start it", 1),
}
WORKSPACE = {**TOKENS, **NETWORKS, **WAREHOUSES}
SOME = ("token invalid", "address blocked", "warehouse not allowed")

#: The tokens that tests have: none may be told.
SECRETS = re.compile(r"local-token|local-secret|oauth-[0-9a-f]{8}|next-token")


@pytest.fixture
def trusted(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", warehouse.ca_file)


@pytest.fixture
def destination(opened: Callable[[], Destination]) -> Iterator[Destination]:
    """With both tables, at LSN 1."""
    with opened() as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        yield destination


def refused(act: Callable[[], Any]) -> CdcError:
    with pytest.raises(CdcError) as caught:
        act()
    assert not SECRETS.search(str(caught.value))
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def assert_told(error: CdcError, kind: str) -> None:
    words, code = WORDS[kind]
    assert re.search(words, str(error)), error
    assert error.exit_code == code


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.parametrize(
    ("kind", "oauth"), [*((kind, False) for kind in WORKSPACE), ("token invalid", True)]
)
@pytest.mark.usefixtures("trusted")
def test_the_first_session_is_refused(
    warehouse: Warehouse, tmp_path: Path, kind: str, *, oauth: bool
) -> None:
    warehouse.add_fault("THRIFT OpenSession", times=FOREVER, **WORKSPACE[kind])
    assert_told(refused(lambda: opened_with(warehouse, tmp_path, oauth=oauth)), kind)


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.parametrize("kind", [*TOKENS, *NETWORKS])
@pytest.mark.usefixtures("trusted")
def test_a_service_principals_login_is_refused(
    warehouse: Warehouse, tmp_path: Path, kind: str
) -> None:
    warehouse.add_fault("HTTP POST /oidc", times=FOREVER, **WORKSPACE[kind])
    assert_told(refused(lambda: opened_with(warehouse, tmp_path, oauth=True)), kind)


PLACES: dict[str, Callable[[Destination], Any]] = {
    "MERGE": lambda destination: destination.load(changes(2), checkpoint(2)),
    "PUT '": lambda destination: destination.load(changes(2), checkpoint(2)),
    "THRIFT GetOperationStatus": lambda destination: destination.load(changes(2), checkpoint(2)),
    "LIST": lambda destination: destination.volumes(),
    "SELECT .*information_schema": lambda destination: destination.try_writing(),
}


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *(("MERGE", kind) for kind in WORKSPACE),
        *((place, kind) for place in list(PLACES)[1:] for kind in SOME),
    ],
)
def test_a_statement_is_refused(
    destination: Destination, warehouse: Warehouse, place: str, kind: str
) -> None:
    """The run after it, or the same destination opened again, goes on when the cause is gone."""
    warehouse.add_fault("MERGE", "delay", seconds=0.05, times=FOREVER)
    warehouse.add_fault(place, times=FOREVER, **WORKSPACE[kind])
    assert_told(refused(lambda: PLACES[place](destination)), kind)
    warehouse.clear_faults()
    destination.load(changes(2), checkpoint(2))
    assert content(destination, "orders", "note") == [("n2",)] * ROWS


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *(("MERGE", kind) for kind in TOKENS),
        *((place, "token missing") for place in (*list(PLACES)[1:], "THRIFT OpenSession")),
    ],
)
def test_a_token_that_ends_anywhere_costs_nothing(
    destination: Destination, warehouse: Warehouse, place: str, kind: str
) -> None:
    warehouse.add_fault("MERGE", "delay", seconds=0.05, times=FOREVER)
    warehouse.add_fault(place, **TOKENS[kind])
    if place == "THRIFT OpenSession":
        destination._store.sessions._discard_idle()  # type: ignore[attr-defined]
    PLACES.get(place, PLACES["MERGE"])(destination)
    destination.load(changes(2), checkpoint(2))
    assert warehouse.faults()[1]["fired"] == 1
    assert content(destination, "orders", "note") == [("n2",)] * ROWS


@pytest.mark.needs_warehouse("Files")
@pytest.mark.parametrize("kind", STORAGES)
def test_the_storage_refuses_an_upload(
    destination: Destination, warehouse: Warehouse, kind: str
) -> None:
    warehouse.add_fault("HTTP PUT", times=FOREVER, **STORAGES[kind])
    error = refused(lambda: destination.load(changes(2), checkpoint(2)))
    assert re.search(r"storage of the volume refused the upload \(403 \w+\).*firewall", str(error))
    assert error.exit_code == 1
    assert statement_in(error) in ids(warehouse, "PUT '")


@pytest.mark.needs_warehouse("Files")
@pytest.mark.parametrize("kind", ADDRESSES)
def test_an_upload_whose_address_has_ended_gets_a_new_one(
    destination: Destination, warehouse: Warehouse, kind: str
) -> None:
    warehouse.add_fault("HTTP PUT", **ADDRESSES[kind])
    destination.load(changes(2), checkpoint(2))
    assert warehouse.faults()[0]["fired"] == 1
    warehouse.clear_faults()
    warehouse.add_fault("HTTP PUT", times=FOREVER, **ADDRESSES[kind])
    error = refused(lambda: destination.load(changes(3), checkpoint(3)))
    assert re.search(
        r"a new address for an old one \(40\d \w+\); set this machine's clock", str(error)
    )


@pytest.mark.parametrize(
    "lacking",
    [
        pytest.param(lacking, marks=pytest.mark.needs_warehouse("Files"))
        if "VOLUME" in lacking and "CREATE" not in lacking
        else lacking
        for lacking in PRIVILEGES
    ],
)
def test_a_privilege_is_missing(
    opened: Callable[[], Destination], warehouse: Warehouse, lacking: str
) -> None:
    """What is to be granted, on what, is in the cure; so `check` says it too, which asks this."""
    pattern, settings = PRIVILEGES[lacking]
    with opened() as destination:
        warehouse.add_fault(pattern, times=FOREVER, **settings)
        error = refused(destination.try_writing)
    assert re.search(rf"run: GRANT {lacking} ON [A-Z]+ main\S* TO", error.cure), error
    assert error.exit_code == 3
    if ENGINE == "warehouse":
        assert statement_in(error) in ids(warehouse, pattern)


@pytest.mark.needs_warehouse("Statement IDs")
def test_every_failed_statement_is_named(destination: Destination, warehouse: Warehouse) -> None:
    """Failed at once, while it is waited for, while its rows are fetched, and by a conflict."""
    for pattern, fault in (
        ("MERGE", {"kind": "error", "error_class": "CAST_INVALID_INPUT"}),
        ("MERGE", {"kind": "conflict"}),
        ("LIST", {"kind": "error", "error_class": "INTERNAL_ERROR"}),
        ("SELECT .* FROM `main`.`bronze`.`orders`", {"kind": "error"}),
    ):
        warehouse.add_fault(pattern, times=FOREVER, **fault)
        actions = {"LIST": destination.volumes, "MERGE": load_changes(destination)}
        error = refused(actions.get(pattern, lambda: content(destination, "orders", "id")))
        assert statement_in(error) in ids(warehouse, pattern)
        warehouse.clear_faults()
    warehouse.add_fault("MERGE", "delay", seconds=0.05, times=FOREVER)
    warehouse.add_fault("THRIFT GetOperationStatus", times=FOREVER, **TOKENS["token invalid"])
    assert statement_in(refused(load_changes(destination))) in ids(warehouse, "MERGE")


def load_changes(destination: Destination) -> Callable[[], None]:
    return lambda: destination.load(changes(2), checkpoint(2))


def statement_in(error: CdcError) -> str:
    found = re.search(r"\(statement ([0-9a-f-]{36})\)", error.what)
    assert found, error
    return found[1]


def ids(warehouse: Warehouse, pattern: str) -> set[str]:
    """Of the statements like it that the warehouse was sent."""
    like = re.compile(pattern, re.IGNORECASE | re.DOTALL)
    return {s["id"] for s in warehouse.statements() if like.search(s["text"])}


# Logins.


class Vault:
    """Where a token or secret is rotated."""

    def __init__(self, warehouse: Warehouse, *, oauth: bool = False) -> None:
        self.keys = warehouse.dlt_credentials(oauth=oauth)
        self.asked = 0

    def read(self) -> Mapping[str, Any]:
        self.asked += 1
        return self.keys


def opened_with(
    warehouse: Warehouse, work: Path, vault: Vault | None = None, *, oauth: bool = False
) -> Destination:
    """Opened, and asked for its checkpoint."""
    destination = databricks_destination(
        PipelineSettings("pgbronze", "bronze", work / "work"),
        warehouse.dlt_credentials(oauth=oauth),
        retry_policy=PATIENCE,
        read_credentials=vault.read if vault else None,
    )
    with destination:
        destination.read_checkpoint()
    return destination


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.usefixtures("trusted")
def test_a_service_principals_tokens_end_any_number_of_times(
    warehouse: Warehouse, tmp_path: Path, status: int
) -> None:
    """Long before they were said to."""
    warehouse.change_access(status=status)
    with opened_with(warehouse, tmp_path, oauth=True) as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        for number in range(2, 5):
            warehouse.change_access(end_tokens=True)
            destination.load(changes(number), checkpoint(number))
        assert content(destination, "orders", "note") == [("n4",)] * ROWS


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.usefixtures("trusted")
def test_tokens_that_end_in_the_middle_of_every_load(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.change_access(valid_for=0.5)
    with opened_with(warehouse, tmp_path, oauth=True) as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        warehouse.clear_log()
        for number in range(2, 10):
            destination.load(changes(number), checkpoint(number))
        assert warehouse.counters()["refused"] > 2
        assert content(destination, "orders", "note") == [("n9",)] * ROWS


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.usefixtures("trusted")
def test_a_short_token_is_replaced_before_it_ends(warehouse: Warehouse, tmp_path: Path) -> None:
    """One token serves all sessions, and none is refused."""
    warehouse.change_access(lifetime=2)
    with opened_with(warehouse, tmp_path, oauth=True) as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        assert warehouse.counters()["tokens"] <= 2


@pytest.mark.needs_warehouse("Logins and network")
@pytest.mark.parametrize("oauth", [False, True])
@pytest.mark.usefixtures("trusted")
def test_a_rotated_secret_is_read_again(
    warehouse: Warehouse, tmp_path: Path, *, oauth: bool
) -> None:
    key = "client_secret" if oauth else "access_token"
    setting = "client_secret" if oauth else "token"
    vault = Vault(warehouse, oauth=oauth)
    with opened_with(warehouse, tmp_path, vault, oauth=oauth) as destination:
        destination.load(snapshot(destination, 1), checkpoint(1))
        assert vault.asked == 0
        for number in (2, 3):
            vault.keys = {**vault.keys, key: f"next-token-{number}"}
            warehouse.change_access(end_tokens=True, **{setting: f"next-token-{number}"})
            destination.load(changes(number), checkpoint(number))
            assert vault.asked == number - 1
        assert content(destination, "orders", "note") == [("n3",)] * ROWS
        warehouse.change_access(end_tokens=True, **{setting: "next-token-nobody-has"})
        assert isinstance(refused(load_changes(destination)), SettingsError)


@pytest.mark.needs_warehouse("Logins and network")
def test_credentials_that_never_worked_are_tried_once(warehouse: Warehouse, tmp_path: Path) -> None:
    vault = Vault(warehouse)
    warehouse.change_access(token="next-token")
    error = refused(lambda: opened_with(warehouse, tmp_path, vault))
    assert_told(error, "token invalid")
    assert vault.asked == 0
    assert warehouse.counters()["refused"] == 1


@pytest.mark.needs_warehouse("Logins and network")
def test_a_refusal_without_a_reason(destination: Destination, warehouse: Warehouse) -> None:
    warehouse.add_fault("MERGE", times=FOREVER, **gateway(403, ""))
    error = refused(load_changes(destination))
    assert error.exit_code == 2
    assert "HTTP 403, no reason given" in str(error)
