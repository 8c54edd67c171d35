"""What the system does with messages: handlers, the unit of work, deliveries, and the ports.

`store.py` is the port to whatever keeps orders and messages; `notifications.py` the one to
whoever is notified. Imports `messaging` and `domain`; no engine, no terminal.
"""
