"""Ports: one Protocol a file; the docstring is the contract that its contract suite tests."""
