"""Scoped, complete, explained reproducibility for PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

from .scope import Scope, ScopeConflictError, Seeded, seeded
from .seeds import derive_seed, fresh_seed
from .snapshot import RestoreError, Snapshot, snapshot
from .sources import Source, register_source
from .stream import Stream

if TYPE_CHECKING:
    from .data import SeededDataset, loader_options
    from .distributed import rank_seed, shared_seed
    from .evaluation import evaluating

__version__ = "0.1.0"

# Loaded on first use (PEP 562), so that `import seedscope` stays light.
_LATER = {
    "SeededDataset": "data",
    "evaluating": "evaluation",
    "loader_options": "data",
    "rank_seed": "distributed",
    "shared_seed": "distributed",
}

__all__ = [
    "RestoreError",
    "Scope",
    "ScopeConflictError",
    "Seeded",
    "SeededDataset",
    "Snapshot",
    "Source",
    "Stream",
    "derive_seed",
    "evaluating",
    "fresh_seed",
    "loader_options",
    "rank_seed",
    "register_source",
    "seeded",
    "shared_seed",
    "snapshot",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'seedscope' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
