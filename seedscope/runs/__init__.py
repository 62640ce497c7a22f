"""The run log: what is kept of each run, in a file that is only appended to."""
