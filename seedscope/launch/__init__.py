"""`seedscope run`: a program in a scope, in an interpreter with a known hash seed."""
