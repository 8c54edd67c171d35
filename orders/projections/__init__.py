"""Folds of the log: read models, policies that react, and what keeps them up to date.

Imports `application` and the layers below it; knows a store only by its port.
"""
