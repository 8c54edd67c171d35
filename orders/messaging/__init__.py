"""How parts talk: messages, the bus that routes them by topic, and who subscribes to what.

Knows nothing of orders or stores; the only package that imports pypubsub. Everything may
import it.
"""
