"""The PostgreSQL engine, for more than one machine: log, orders, deliveries, snapshots as tables.

Only `bootstrap.py` imports it, and only for a store whose name is a URL.
"""
