"""The soak: random DML and DDL from several connections while runs are killed, restarted and cut.

`python -m tests.soak --minutes 30 --seed 7 --destination duckdb`. After every round the destination
must equal the source, cell by cell, told by `tests.support.oracle`.
"""
