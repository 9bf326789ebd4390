"""Run recorded experiments again, on this machine or another, and report what has changed."""
