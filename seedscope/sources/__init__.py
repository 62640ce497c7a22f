"""The sources of random numbers that a scope governs, one module for each library."""
