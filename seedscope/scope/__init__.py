"""`seeded` and `Stream`: the open scopes, one scope, and the decorators."""
