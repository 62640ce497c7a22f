"""Internal helpers that the rest of the package builds on."""
