"""What an order is, what can be asked of it, what can happen to it, and its rules.

Pure: no files, no clocks but a message's own, no terminal. Imports `messaging` only.
"""
