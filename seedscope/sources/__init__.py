"""The sources of random numbers that a scope governs, a module for each library."""
