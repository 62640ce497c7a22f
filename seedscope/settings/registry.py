"""All settings, and the values that each mode of `deterministic` sets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch

from ..support.process_start import HASH_SEEDS, variables
from . import attention, cudnn, deterministic_algorithms, environment, onednn, precision, replaced
from .base import Settings

SETTINGS = Settings(
    [
        *environment.SETTINGS,
        *cudnn.SETTINGS,
        *onednn.SETTINGS,
        *deterministic_algorithms.SETTINGS,
        *precision.SETTINGS,
        *attention.SETTINGS,
        *replaced.SETTINGS,
    ],
    precision.settled,
)

_CUDNN = {"cudnn.benchmark": False, "cudnn.deterministic": True}
_STRICT = {
    "replacements": True,
    **_CUDNN,
    "mkldnn.deterministic": True,
    "deterministic_algorithms": deterministic_algorithms.ERROR,
    "inductor.deterministic": True,
    # For an inductor that is imported inside the block, and for child processes.
    environment.INDUCTOR_VARIABLE: "1",
}

#: The settings by mode of `deterministic`.
_VALUES: dict[bool | str, dict[str, Any]] = {
    True: _STRICT,
    "warn": {
        **_STRICT,
        "deterministic_algorithms": deterministic_algorithms.WARN,
        "replacements": False,
    },
    "cudnn": _CUDNN,
    False: {},
}


def values_for(
    mode: bool | str, fill: bool | None, replacements: bool, seed: int
) -> Mapping[str, Any]:
    """Return the values that a scope applies, by the names of the settings."""
    workspace = environment.read_variable("CUBLAS_WORKSPACE_CONFIG")
    # `seedscope run` starts a process with all 32 bits, and children hash as the process does.
    has_hash_seed = environment.read_variable("PYTHONHASHSEED") == str(seed % 2**32)
    hash_seed = seed if has_hash_seed else seed % HASH_SEEDS
    return _values_for(mode, fill, replacements, hash_seed, workspace, torch.__version__)


@lru_cache
def _values_for(
    mode: bool | str,
    fill: bool | None,
    replacements: bool,
    hash_seed: int,
    workspace: str | None,
    version: str,
) -> Mapping[str, Any]:
    values = dict(_VALUES[mode])
    if "deterministic_algorithms" in values:
        values |= variables(hash_seed, workspace, version)
    if fill is not None:
        values["fill_uninitialized_memory"] = fill
    if not replacements:
        values["replacements"] = False
    return MappingProxyType(SETTINGS.in_order(values))
