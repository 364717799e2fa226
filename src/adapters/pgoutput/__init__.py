"""PostgreSQL as a source: slot, publication, catalog, snapshot, and the stream of changes."""
