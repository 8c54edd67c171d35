"""What was (`history`), what came of it (`trace`), what happens now (`feed`); and `wording`.

They read the store by its port and change nothing.
"""
