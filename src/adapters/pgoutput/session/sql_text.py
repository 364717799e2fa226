"""SQL identifiers, SQL strings and the options of pgoutput."""

from __future__ import annotations


def quote(name: str) -> str:
    """An SQL identifier, always in quotes."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def plugin_options(publication: str, *, binary: bool) -> dict[str, str]:
    """The options of pgoutput. Manual: "Logical Streaming Replication Parameters"."""
    # The option is a list of quoted names.
    names = '"' + publication.replace('"', '""') + '"'
    options = {"proto_version": "1", "publication_names": names}
    return {**options, "binary": "true"} if binary else options
