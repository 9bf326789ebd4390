"""What a server's refusal means, when to ask again, and one HTTP client for small errands."""
