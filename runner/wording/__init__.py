"""How things are said to people: numbers, differences, suggestions."""
