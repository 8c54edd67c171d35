"""NATS JetStream: what other services hear of orders, and ask for.

The only importer of nats-py. Only the commands that talk to NATS import it, and late. What is
asynchronous stays in here: the store is not.
"""
