"""SQL that all table stores share, and their dialects."""
