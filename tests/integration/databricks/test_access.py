"""Who may in, who may not, and what the operator is told; nothing of it holds a secret."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from adapters.dlt_destination.databricks.factory import databricks_destination
from adapters.dlt_destination.databricks.retry import DEFAULT_RETRY_POLICY, RetryPolicy
from adapters.dlt_destination.settings import PipelineSettings
from cdc_core.values.errors import DestinationUnavailable, SettingsError
from cdc_core.values.merges import EMPTY_BATCH
from tests.contracts.destination_contract import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse


pytestmark = pytest.mark.needs_warehouse("Logins and network")

SHORT = RetryPolicy(first_wait=0.01, longest_wait=0.05, seconds_away=1.0)
IMPATIENT = RetryPolicy(attempts=2, first_wait=0.01)


def load(credentials: dict[str, Any], work: Path, retry_policy: RetryPolicy = IMPATIENT) -> None:
    settings = PipelineSettings("pgbronze", "bronze", work)
    with databricks_destination(settings, credentials, retry_policy=retry_policy) as destination:
        destination.load(EMPTY_BATCH, checkpoint(1))


def changed(warehouse: Warehouse, *, oauth: bool = False, **parameters: Any) -> dict[str, Any]:
    """Credentials with other parameters of the connection; None takes one away."""
    credentials = warehouse.dlt_credentials(oauth=oauth)
    merged = {**credentials["connection_parameters"], **parameters}
    kept = {name: value for name, value in merged.items() if value is not None}
    return {**credentials, "connection_parameters": kept}


def test_a_service_principal_may_in(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", warehouse.ca_file)
    load(warehouse.dlt_credentials(oauth=True), tmp_path)


@pytest.mark.parametrize("oauth", [False, True])
def test_refused_credentials_are_a_setting(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oauth: bool
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", warehouse.ca_file)
    key = "client_secret" if oauth else "access_token"
    credentials = {**warehouse.dlt_credentials(oauth=oauth), key: "wrong-secret"}
    with pytest.raises(SettingsError, match="refused the credentials") as caught:
        load(credentials, tmp_path)
    assert caught.value.exit_code == 2
    assert "wrong-secret" not in str(caught.value)


def test_a_missing_catalog_is_a_setting(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"credentials\.catalog"):
        load({**warehouse.dlt_credentials(), "catalog": "nowhere"}, tmp_path)


@pytest.mark.parametrize("key", ["http_path", "catalog"])
def test_no_warehouse_is_guessed(warehouse: Warehouse, tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match=key):
        load({**warehouse.dlt_credentials(), key: None}, tmp_path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be reached is told without any wait, however patient a run is otherwise."""

    def wait(seconds: float) -> None:
        pytest.fail(f"waits for {seconds} s")

    monkeypatch.setattr(time, "sleep", wait)


@pytest.mark.parametrize("oauth", [False, True])
@pytest.mark.parametrize("uri", ["https://localhost:9/x", "https://nowhere.invalid/x"])
@pytest.mark.usefixtures("at_once")
def test_nobody_there_is_unavailable(
    warehouse: Warehouse, tmp_path: Path, uri: str, *, oauth: bool
) -> None:
    credentials = changed(warehouse, oauth=oauth, _connection_uri=uri)
    credentials["server_hostname"] = urlsplit(uri).netloc
    with pytest.raises(DestinationUnavailable) as caught:
        load(credentials, tmp_path, DEFAULT_RETRY_POLICY)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("oauth", [False, True])
@pytest.mark.usefixtures("at_once")
def test_an_untrusted_certificate_is_a_setting(
    warehouse: Warehouse, tmp_path: Path, *, oauth: bool
) -> None:
    """With a token the connector's own settings count, with `client_id` the SDK's too."""
    trusted = warehouse.ca_file if oauth else None
    with pytest.raises(SettingsError, match="certificate is not trusted") as caught:
        load(
            changed(warehouse, oauth=oauth, _tls_trusted_ca_file=trusted),
            tmp_path,
            DEFAULT_RETRY_POLICY,
        )
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("at_once")
def test_a_certificate_of_another_host_is_a_setting(warehouse: Warehouse, tmp_path: Path) -> None:
    uri = f"https://127.0.0.1:{warehouse.port}{warehouse.http_path}"
    with pytest.raises(SettingsError, match="for another host"):
        load(changed(warehouse, _connection_uri=uri), tmp_path, DEFAULT_RETRY_POLICY)


def test_certificates_may_be_left_unchecked(warehouse: Warehouse, tmp_path: Path) -> None:
    load(changed(warehouse, _tls_trusted_ca_file=None, _tls_no_verify=True), tmp_path)


def test_an_unreachable_warehouse_is_retried_up_to_a_limit(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.add_fault("SELECT|CREATE", "http", times=1000)
    with pytest.raises(DestinationUnavailable, match="max retry duration"):
        load(warehouse.dlt_credentials(), tmp_path, SHORT)
    (fault,) = warehouse.faults()
    assert fault["fired"] > SHORT.attempts


def test_headers_reach_the_workspace(warehouse: Warehouse, tmp_path: Path) -> None:
    load({**warehouse.dlt_credentials(), "http_headers": {"X-Team": "lake"}}, tmp_path)
    assert warehouse.headers()["x-team"] == "lake"
