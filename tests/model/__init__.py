"""A model of the replication protocol: every reachable state for small bounds, and its traces."""
