"""Who trains: this machine, a command of the user, a hosted API."""
