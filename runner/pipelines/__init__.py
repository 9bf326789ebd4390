"""Pipelines: train a model, compare it with its base, and register it if it is better."""
