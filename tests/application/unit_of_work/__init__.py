"""Tests of the unit of work; a package, so that it has fixtures of its own."""
