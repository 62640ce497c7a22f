"""`sweep`: one function under many seeds, and the results."""
