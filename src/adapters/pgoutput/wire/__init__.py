"""PostgreSQL's logical replication messages and COPY text: bytes in, Arrow out, no I/O."""
