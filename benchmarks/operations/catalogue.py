"""The list of all operations of the atlas."""

from __future__ import annotations

from .attention import attentions
from .convolutions import convolutions
from .images import padding, pooling, resizing
from .indexing import indexing
from .losses import losses
from .products import products
from .scans import scans

#: Attention through each backend, at three lengths; on a GPU its own piece.
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
