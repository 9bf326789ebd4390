"""Define what a schedule runs, when a turn of it has failed, and who is notified."""
