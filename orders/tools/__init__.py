"""Work on whole stores: orders in and out as files, the health of a store, how fast it is.

Uses an application as anybody else does; only the command line and the demos use these.
"""
