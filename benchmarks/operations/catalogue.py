"""The operations of the atlas: how each is called, and which entries of the three lists it is."""

from __future__ import annotations

from .attention import attentions
from .convolutions import convolutions
from .images import padding, pooling, resizing
from .indexing import indexing
from .losses import losses
from .products import products
from .scans import scans

#: Through each backend, at three lengths; on a GPU a piece of their own.
ATTENTION = attentions()
OPERATIONS = [
    *convolutions(),
    *indexing(),
    *scans(),
    *resizing(),
    *padding(),
    *pooling(),
    *losses(),
    *ATTENTION,
    *products(),
]
