"""Use cases: the mission in plain words, over ports only."""
