"""Which tables are followed, under which names, and how their definitions change."""
