"""The pieces of `python -m benchmarks gpu`, one module for each kind, and their summary."""
