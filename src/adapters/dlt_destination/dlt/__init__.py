"""Everything that relies on dlt's internals."""
