"""Delta tables in a folder or bucket."""
