"""The settings of Delta tables in a folder or an object store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import Field

from adapters.dlt_destination.section import Section, Table, Text
from adapters.dlt_destination.settings import local_folder
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Settings(Section):
    """`credentials`, `kwargs` and `client_kwargs` are dlt's, for object stores."""

    no_variant = "the destination delta has no such type"

    bucket_url: Text = Field(default="./lakehouse", description="folder or object store")
    credentials: Table | None = Field(default=None, repr=False, description="of the object store")
    kwargs: Table | None = Field(default=None, repr=False, description="for fsspec")
    client_kwargs: Table | None = Field(default=None, repr=False, description="for fsspec's client")
    deltalake_storage_options: Table | None = Field(
        default=None, repr=False, description="for the deltalake library"
    )

    def check(self, dataset: str, environ: Mapping[str, str]) -> None:  # noqa: ARG002 - a folder
        """Require a folder that exists or can be created; dlt checks object stores."""
        key = "destination.filesystem.bucket_url"
        folder = local_folder(self.bucket_url)
        if folder is None or folder.is_dir():
            return
        there = next(place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
        if not there.is_dir():
            raise SettingsError(
                f"{key} = {self.bucket_url!r}: {there} is no folder", "name another place"
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise SettingsError(
                f"{key} = {self.bucket_url!r}: nothing can be made in {there}", "name another place"
            )
