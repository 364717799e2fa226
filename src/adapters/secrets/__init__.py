"""Sources of credentials: the environment and dlt's files, or a Databricks secret scope."""

from adapters.secrets.databricks_scope import DatabricksSecretScope
from adapters.secrets.dlt_providers import DltProviders

__all__ = ["DatabricksSecretScope", "DltProviders"]
