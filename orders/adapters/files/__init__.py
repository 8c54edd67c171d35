"""The files engine: a directory with the event log, the state, snapshots, a lock and leases.

`store.py` puts the rest together. `log.py`, `reader.py` and `line.py` are the event log;
`orders.py` and `state.py` the state that TinyDB reads; `ledger.py` the deliveries. May import
`application` and what is inside of it; only `bootstrap.py` imports it.
"""
