"""The settings of a DuckDB file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from adapters.dlt_destination.section import NoIndexes, Section, Text
from adapters.setting_names import cure
from cdc_core.values.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMAS = ("main", "information_schema", "pg_catalog", "temp", "system")


class Settings(Section):
    credentials: Text = Field(default="lake.duckdb", description="DuckDB file")
    create_indexes: NoIndexes = Field(
        default=False, description="dlt's key; only false is accepted"
    )

    def check(self, dataset: str, environ: Mapping[str, str]) -> None:  # noqa: ARG002 - a file
        """Require a file that can be created; DuckDB and dlt check other forms (`md:…`)."""
        key = "destination.duckdb.credentials"
        credentials = self.credentials
        name = "pipeline.dataset_name"
        if dataset.lower() in _SCHEMAS:
            raise SettingsError(
                f"{name} = {dataset!r} is DuckDB's own, which nothing can drop", cure(name)
            )
        if credentials.removeprefix("duckdb:///").startswith(":memory:"):
            raise SettingsError(f"{key} is :memory:, which ends with the run", "name a file")
        if re.match(r"(?!duckdb:///)[a-z]+:", credentials):
            return
        file = Path(credentials.removeprefix("duckdb:///"))
        if file.is_dir():
            raise SettingsError(f"{key} = {credentials!r} is a folder", "name a file in it")
        if not file.absolute().parent.is_dir():
            raise SettingsError(f"{key} = {credentials!r}: its folder does not exist", "create it")
        # DuckDB names the database after its file. It rejects a name that is both database and
        # schema.
        database = next((part for part in file.name.split(".") if part), "").lower()
        if database == dataset.lower():
            raise SettingsError(
                f"{key} = {credentials!r} and {name} = {dataset!r} give the database the name of a "
                "schema in it, which DuckDB cannot distinguish",
                f"rename the file or the dataset: {cure(key)}; {cure(name)}",
            )
