"""The replication slot and the lock of its one writer."""
