"""Fine-tuning: jobs that outlive the process that started them, their ledger on disk, their data, and the trainers."""
