"""What the system catalogs say: tables, types, publication, who may stream."""
