"""Helpers that tests of several folders share; tests/README.md says which is for what."""
