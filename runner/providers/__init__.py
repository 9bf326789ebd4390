"""Who owns a model's life: launch, kill, fine-tune. One module a provider; weights and kept servers beside them."""
