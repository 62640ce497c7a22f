"""`sweep`: one function under many seeds, and what came of it."""
