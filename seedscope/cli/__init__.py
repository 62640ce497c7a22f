"""The `seedscope` command line: one module for each command."""
