"""Scoped, complete, explained reproducibility for PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .costs.cost import cost
    from .costs.result import Cost
    from .data.dataset import SeededDataset
    from .data.loader import seeded_loader
    from .data.options import loader_options
    from .data.sampler import SeededSampler
    from .diagnosis.diagnose import assert_reproducible, diagnose
    from .diagnosis.report import Report
    from .distributed import rank_seed, shared_seed
    from .evaluation import evaluating
    from .random_state import RandomState
    from .replacements.register import register_replacement
    from .runs.log import RunLog
    from .runs.run import Run
    from .scope.isolated import Isolated, isolated
    from .scope.open_scopes import ScopeConflictError
    from .scope.scope import Scope
    from .scope.seeded import Seeded, current_scope, note, seeded
    from .scope.stream import Stream
    from .seeds import derive_seed, fresh_seed
    from .snapshots import RestoreError, Snapshot, snapshot
    from .sources.base import Source
    from .sources.registry import register_source
    from .sweeps.result import Sweep, SweepBroken, SweepInterrupted
    from .sweeps.sweep import sweep

__version__ = "0.1.0"

# Each name is loaded on first use (PEP 562): `seedscope run` restarts the interpreter, and
# must not load torch twice. So no module may have the name of a public object.
_MODULES = {
    "costs.cost": ["cost"],
    "costs.result": ["Cost"],
    "data.dataset": ["SeededDataset"],
    "data.loader": ["seeded_loader"],
    "data.options": ["loader_options"],
    "data.sampler": ["SeededSampler"],
    "diagnosis.diagnose": ["assert_reproducible", "diagnose"],
    "diagnosis.report": ["Report"],
    "distributed": ["rank_seed", "shared_seed"],
    "evaluation": ["evaluating"],
    "random_state": ["RandomState"],
    "replacements.register": ["register_replacement"],
    "runs.log": ["RunLog"],
    "runs.run": ["Run"],
    "scope.isolated": ["Isolated", "isolated"],
    "scope.open_scopes": ["ScopeConflictError"],
    "scope.scope": ["Scope"],
    "scope.seeded": ["Seeded", "current_scope", "note", "seeded"],
    "scope.stream": ["Stream"],
    "seeds": ["derive_seed", "fresh_seed"],
    "snapshots": ["RestoreError", "Snapshot", "snapshot"],
    "sources.base": ["Source"],
    "sources.registry": ["register_source"],
    "sweeps.result": ["Sweep", "SweepBroken", "SweepInterrupted"],
    "sweeps.sweep": ["sweep"],
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Cost",
    "Isolated",
    "RandomState",
    "Report",
    "RestoreError",
    "Run",
    "RunLog",
    "Scope",
    "ScopeConflictError",
    "Seeded",
    "SeededDataset",
    "SeededSampler",
    "Snapshot",
    "Source",
    "Stream",
    "Sweep",
    "SweepBroken",
    "SweepInterrupted",
    "assert_reproducible",
    "cost",
    "current_scope",
    "derive_seed",
    "diagnose",
    "evaluating",
    "fresh_seed",
    "isolated",
    "loader_options",
    "note",
    "rank_seed",
    "register_replacement",
    "register_source",
    "seeded",
    "seeded_loader",
    "shared_seed",
    "snapshot",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name == "replacements":  # a room with a function of its own: replacements.remove()
        return importlib.import_module(".replacements", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'seedscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # later accesses skip this function
    return value


def _rebuild(kind: str | type, state: Any, more: dict[str, Any]) -> Any:
    """Return a pickled object; its public name lets pickles survive a move of the module."""
    cls: Any = __getattr__(kind) if isinstance(kind, str) else kind
    rebuilt = cls.__new__(cls)
    rebuilt.__setstate__(state)
    vars(rebuilt).update(more)
    return rebuilt


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
