"""Schedules: what is played when its time has come, and the verdict on it."""
