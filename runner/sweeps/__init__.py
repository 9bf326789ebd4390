"""Sweeps: many experiments that differ in what a command line or a config varies, planned, played and taken up again."""
