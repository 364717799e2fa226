"""The secret scope, against a workspace that refuses in each of the SDK's ways."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from databricks.sdk import errors

from adapters.secrets import DatabricksSecretScope
from cdc_core.values.errors import DestinationUnavailable, SettingsError

KEY = "sources.pg_replication.credentials"
SECRET = "postgresql://app:hunter2@db/shop"


def _scope(answer) -> DatabricksSecretScope:
    def get(scope, key):
        assert (scope, key) == ("team", "shop")
        if isinstance(answer, Exception):
            raise answer
        return answer

    workspace = SimpleNamespace(dbutils=SimpleNamespace(secrets=SimpleNamespace(get=get)))
    return DatabricksSecretScope("team", {KEY: "shop"}, lambda: workspace)


def test_value():
    assert _scope(SECRET).get(KEY) == SECRET


def test_other_settings_are_not_its_business():
    assert _scope(SECRET).get("pipeline.name") is None


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (errors.ResourceDoesNotExist(SECRET), SettingsError, "put-secret team shop"),
        (
            errors.ResourceDoesNotExist("Scope team does not exist!"),
            SettingsError,
            "scope 'team' does not exist; run: databricks secrets create-scope team",
        ),
        (errors.PermissionDenied(SECRET), SettingsError, "put-acl team"),
        (errors.Unauthenticated(SECRET), SettingsError, "DATABRICKS_HOST"),
        (ValueError(SECRET), SettingsError, "DATABRICKS_HOST"),
        (errors.TemporarilyUnavailable(SECRET), DestinationUnavailable, "run again"),
        (TimeoutError(SECRET), DestinationUnavailable, "run again"),
    ],
)
def test_refusals_say_what_to_do_and_no_value(error, kind, told):
    with pytest.raises(kind, match=told) as raised:
        _scope(error).get(KEY)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_repr_shows_no_workspace():
    assert "lambda" not in repr(_scope(SECRET))
