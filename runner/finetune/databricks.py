"""Fine-tuning by Databricks' foundation-model training, over plain HTTP (its SDK brings MLflow, datasets and IPython along)."""
