"""Names and values in the text of statements, and pgoutput's options."""

from __future__ import annotations


def quote(name: str) -> str:
    """An SQL identifier, always in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def plugin_options(publication: str, *, binary: bool) -> dict[str, str]:
    """pgoutput's own, by name. Manual: "Logical Streaming Replication Parameters"."""
    # It reads a list of quoted names.
    names = '"' + publication.replace('"', '""') + '"'
    options = {"proto_version": "1", "publication_names": names}
    return {**options, "binary": "true"} if binary else options
