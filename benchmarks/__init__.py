"""What seedscope costs: suites that print a table and write JSON."""
