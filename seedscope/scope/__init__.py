"""`seeded` and `Stream`: what is open, what a scope does, and how it wraps a function."""
