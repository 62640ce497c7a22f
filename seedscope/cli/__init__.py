"""The `seedscope` command, a module for each of its commands."""
