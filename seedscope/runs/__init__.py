"""The run log: an append-only file with a record of each run."""
