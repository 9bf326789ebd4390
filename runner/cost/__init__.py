"""Tokens, prices, budgets."""
