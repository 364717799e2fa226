"""The contract of `Secrets` on every store there is, and on the fake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.errors import PermissionDenied, ResourceDoesNotExist

from adapters.fakes import FaultPlan, InMemorySecrets
from adapters.secrets import DatabricksSecretScope, DltProviders
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from cdc_core.ports.secrets import Secrets

KEY = "sources.pg_replication.credentials"
SECRET = "postgresql://app:hunter2@db:5432/shop?sslmode=require"


class SecretsContract:
    """A subclass gives a store with the secret, and one that refuses it."""

    def holding(self, folder: Path) -> Secrets:
        raise NotImplementedError

    def refusing(self, folder: Path) -> Secrets:
        raise NotImplementedError

    def test_a_secret_is_returned_unchanged_each_time(self, tmp_path: Path) -> None:
        store = self.holding(tmp_path)
        assert [store.get(KEY), store.get(KEY)] == [SECRET, SECRET]

    @pytest.mark.parametrize(
        "key", ["pipeline.name", "sources.pg_replication.credential", "credentials", ""]
    )
    def test_what_the_store_does_not_keep_is_none(self, tmp_path: Path, key: str) -> None:
        assert self.holding(tmp_path).get(key) is None

    def test_a_refusal_is_a_wrong_setting_and_shows_no_value(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError) as told:
            self.refusing(tmp_path).get(KEY)
        assert "hunter2" not in str(told.value)
        assert told.value.exit_code == 2
        assert told.value.__cause__ is None

    def test_no_repr_shows_a_value(self, tmp_path: Path) -> None:
        store = self.holding(tmp_path)
        store.get(KEY)
        assert "hunter2" not in repr(store)


class TestInMemory(SecretsContract):
    def holding(self, folder: Path) -> Secrets:
        return InMemorySecrets({KEY: SECRET})

    def refusing(self, folder: Path) -> Secrets:
        refused = SettingsError("the store refuses", "ask its owner")
        return InMemorySecrets({KEY: SECRET}, FaultPlan(named={"secrets.get": refused}))


class TestEnvironment(SecretsContract):
    def holding(self, folder: Path) -> Secrets:
        given = {"SOURCES__PG_REPLICATION__CREDENTIALS": SECRET, "DLT_PROJECT_DIR": str(folder)}
        return DltProviders.find(["sources.pg_replication"], given)

    def refusing(self, folder: Path) -> Secrets:
        given = {"DLT_PROJECT_DIR": str(folder)}
        return DltProviders.find([KEY], given, {KEY: SECRET})  # a value, where a section belongs


class TestDltFiles(SecretsContract):
    def _written(self, folder: Path, text: str) -> Secrets:
        (folder / ".dlt").mkdir()
        (folder / ".dlt" / "secrets.toml").write_text(text)
        given = {"DLT_PROJECT_DIR": str(folder)}
        return DltProviders.find(["sources.pg_replication"], given)

    def holding(self, folder: Path) -> Secrets:
        return self._written(folder, f'[sources.pg_replication]\ncredentials = "{SECRET}"\n')

    def refusing(self, folder: Path) -> Secrets:
        return self._written(folder, f"[sources.pg_replication]\ncredentials = {SECRET}\n")


class TestDatabricksScope(SecretsContract):
    def _scope(self, answer: Any) -> Secrets:
        def get(scope: str, key: str) -> str:
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        workspace = SimpleNamespace(dbutils=SimpleNamespace(secrets=SimpleNamespace(get=get)))
        return DatabricksSecretScope("team", {KEY: "shop"}, lambda: workspace)

    def holding(self, folder: Path) -> Secrets:
        return self._scope(SECRET)

    def refusing(self, folder: Path) -> Secrets:
        return self._scope(PermissionDenied(SECRET))

    def test_a_key_that_should_be_there_is_a_refusal_too(self) -> None:
        with pytest.raises(SettingsError, match="put-secret team shop"):
            self._scope(ResourceDoesNotExist(SECRET)).get(KEY)
