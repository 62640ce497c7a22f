"""The operations of the atlas, by families."""
