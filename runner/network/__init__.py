"""The meaning of a server's refusal, when to ask again, and one HTTP client for small requests."""
