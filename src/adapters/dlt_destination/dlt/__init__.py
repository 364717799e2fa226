"""Everything that imports dlt or relies on its internals.

The tests of this room name each thing that we rely on, and fail when a new dlt changes it.
"""
