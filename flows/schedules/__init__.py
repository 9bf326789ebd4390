"""Experiments at their times: deployments, the process that serves them, workers."""
