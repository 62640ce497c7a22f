"""`diagnose`: the first operation that differs between runs of one seed, and why."""
