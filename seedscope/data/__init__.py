"""Data that is a function of its seed: datasets, samplers and loaders."""
