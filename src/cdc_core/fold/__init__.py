"""Folding a batch: from changes to one row a key, laid out in the target's columns."""
