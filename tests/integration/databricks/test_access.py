"""Who may in, who may not, and what the operator is told; nothing of it holds a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from adapters.dlt_destination.factories import databricks_destination
from adapters.dlt_destination.settings import PipelineSettings
from adapters.dlt_destination.transient import Patience
from cdc_core.errors import DestinationUnavailable, SettingsError
from cdc_core.staging import EMPTY_BATCH
from tests.contracts.destination_contract import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.warehouse.client import Warehouse


def load(credentials: dict[str, Any], work: Path) -> None:
    settings = PipelineSettings("wal2delta", "bronze", work)
    patience = Patience(attempts=2, first_wait=0.01)
    with databricks_destination(settings, credentials, patience=patience) as destination:
        destination.load(EMPTY_BATCH, checkpoint(1))


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


@pytest.mark.parametrize("uri", ["https://localhost:9/x", "https://nowhere.invalid/x"])
def test_nobody_there_is_unavailable_soon(warehouse: Warehouse, tmp_path: Path, uri: str) -> None:
    credentials = warehouse.dlt_credentials()
    parameters = {**credentials["connection_parameters"], "_connection_uri": uri}
    with pytest.raises(DestinationUnavailable) as caught:
        load({**credentials, "connection_parameters": parameters}, tmp_path)
    assert caught.value.exit_code == 1
