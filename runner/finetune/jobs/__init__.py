"""Training jobs that outlive the process that started them."""
