"""Pipelines: the closed loop from a baseline to a tuned model that is registered."""
