"""Fine-tuning: jobs that outlive the process that started them, the data they learn, and what their models are called."""
