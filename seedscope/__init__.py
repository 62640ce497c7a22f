"""Scoped, complete, explained reproducibility for PyTorch."""

from .scope import Scope, ScopeConflictError, Seeded, seeded
from .seeds import derive_seed, fresh_seed
from .snapshot import RestoreError, Snapshot, snapshot
from .sources import Source, register_source
from .stream import Stream

__version__ = "0.1.0"

__all__ = [
    "RestoreError",
    "Scope",
    "ScopeConflictError",
    "Seeded",
    "Snapshot",
    "Source",
    "Stream",
    "derive_seed",
    "fresh_seed",
    "register_source",
    "seeded",
    "snapshot",
]
