"""What `python -m benchmarks gpu` measures, one file for each kind, and how it is summed up."""
