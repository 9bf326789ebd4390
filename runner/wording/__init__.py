"""Text for people: numbers, differences, suggestions."""
