"""Read a Databricks secret scope through the SDK: a wheel task has no `dbutils`.

Source: Databricks documentation, "Secret management", `databricks.sdk.WorkspaceClient().dbutils`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cdc_core.values.errors import DestinationUnavailable, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _workspace() -> Any:
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient()


@dataclass(frozen=True)
class DatabricksSecretScope:
    """The secrets of one scope. `keys` maps dotted settings to the names of keys in the scope."""

    scope: str
    keys: Mapping[str, str]
    workspace: Callable[[], Any] = field(default=_workspace, repr=False)

    def get(self, key: str) -> str | None:
        name = self.keys.get(key)
        if name is None:
            return None
        try:
            value = self.workspace().dbutils.secrets.get(self.scope, name)
        except ImportError:
            raise SettingsError(
                f"the secret scope {self.scope!r} needs the Databricks SDK",
                "run: pip install databricks-sdk",
            ) from None
        except Exception as error:  # noqa: BLE001 - the SDK raises many kinds; each names no value
            raise self._refusal(name, error) from None
        return str(value)

    def _refusal(self, name: str, error: Exception) -> Exception:
        """Return an error for the workspace's refusal, without repeating its text."""
        match type(error).__name__:
            case "NotFound" | "ResourceDoesNotExist" if str(error).startswith("Scope "):
                return SettingsError(
                    f"the secret scope {self.scope!r} does not exist",
                    f"run: databricks secrets create-scope {self.scope}; "
                    f"databricks secrets put-secret {self.scope} {name}",
                )
            case "NotFound" | "ResourceDoesNotExist":
                return SettingsError(
                    f"the secret scope {self.scope!r} has no key {name!r}",
                    f"run: databricks secrets put-secret {self.scope} {name}",
                )
            case "PermissionDenied":
                return SettingsError(
                    f"no permission to read {name!r} in the secret scope {self.scope!r}",
                    f"run: databricks secrets put-acl {self.scope} PRINCIPAL READ",
                )
            case "Unauthenticated" | "ValueError":
                return SettingsError(
                    f"no credentials of the workspace to read the secret scope {self.scope!r}",
                    "run on Databricks, or set DATABRICKS_HOST and DATABRICKS_TOKEN",
                )
            case kind:
                return DestinationUnavailable(
                    f"the secret scope {self.scope!r} could not be read ({kind})", "run again"
                )
