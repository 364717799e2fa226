"""dlt's filesystem client: the options by which delta-rs reaches the same storage.

Source: dlt, `dlt.common.libs.deltalake`.
"""

from __future__ import annotations

from typing import Any


def storage_options(client: Any) -> dict[str, str] | None:
    """Return the credentials of dlt's client in the form that delta-rs expects."""
    from dlt.common.libs.deltalake import deltalake_storage_options

    options: dict[str, str] | None = deltalake_storage_options(
        client.config.credentials, client.config.deltalake_storage_options
    )
    return options
