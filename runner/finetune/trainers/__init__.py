"""Trainers: this machine, the user's own command, hosted APIs."""
