"""This machine: paths, clock, files written whole, locks, child processes."""
