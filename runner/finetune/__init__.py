"""Fine-tuning: jobs that outlive the process that began them, their ledger on disk, their data, and who trains."""
