"""Values that every part of the core speaks of: positions, tables, changes, errors."""
