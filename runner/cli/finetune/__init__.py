"""Fine-tuning from the command line: the actions of `ostinato ft`."""
