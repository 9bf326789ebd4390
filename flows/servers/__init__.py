"""The Prefect server that Ostinato keeps: started, found again, cleaned up."""
