"""Providers: they launch, kill and fine-tune models. One module per provider."""
