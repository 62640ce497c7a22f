"""The suites that measure the cost of seedscope; each prints a table and writes JSON."""
