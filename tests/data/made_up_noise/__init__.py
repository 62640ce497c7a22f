"""A package of a user, whose functions draw from a generator of their module."""
