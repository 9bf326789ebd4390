"""Estimate tokens, price responses and keep budgets."""
