"""Sweeps: many experiments that differ in the varied keys, planned, run and resumed."""
