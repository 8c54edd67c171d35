"""The engines behind the store port, and whoever notifies: all that touches the world outside.

May import `application` and what is inside of it; only `bootstrap.py` imports what is here.
"""
