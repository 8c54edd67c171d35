"""What every engine promises: the port of `orders/application/store.py`, as sentences."""
