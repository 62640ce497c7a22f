"""`seedscope info`: what affects reproducibility on this machine, for a bug report."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import Any

from .. import __version__
from ..support.tables import aligned
from .arguments import command
from .messages import show, show_json

_VARIABLES = (
    "PYTHONHASHSEED CUBLAS_WORKSPACE_CONFIG TORCHINDUCTOR_DETERMINISTIC CUDA_VISIBLE_DEVICES "
    "CUDA_LAUNCH_BLOCKING NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE OMP_NUM_THREADS "
    "MKL_NUM_THREADS MKL_CBWR ONEDNN_MAX_CPU_ISA ATEN_CPU_CAPABILITY NCCL_ALGO NCCL_PROTO"
)


def add(commands: Any) -> None:
    parser = command(
        commands,
        "info",
        _execute,
        help="show what affects reproducibility, for a bug report",
        description="Show versions, devices, settings and environment variables.",
        epilog="example: seedscope info --json",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _execute(options: argparse.Namespace) -> int:
    info = collect_info()
    if options.json:
        show_json(info)
        return 0
    for section, values in info.items():
        rows = aligned((name, _shown(value)) for name, value in values.items())
        show("\n".join([section, *rows]))
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{key} {item}" for key, item in value.items()]
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def collect_info() -> dict[str, dict[str, Any]]:
    """Return sections of names and JSON values. If there is a GPU, the call starts CUDA."""
    import torch

    from ..replacements.kernels import available
    from ..settings.registry import SETTINGS
    from ..sources.registry import select_sources
    from ..support import conditions

    if torch.cuda.is_available():
        torch.cuda.init()  # type: ignore[no-untyped-call]
    return {
        "versions": {"seedscope": __version__, **conditions.versions()},
        "machine": {
            "system": platform.platform(),
            "devices": conditions.devices(),
            "CPU capability": torch.backends.cpu.get_cpu_capability(),
            "CPU threads": torch.get_num_threads(),
            "CPU threads between operations": torch.get_num_interop_threads(),
            "CPU cores": os.cpu_count(),
        },
        "process": {
            "interpreter": sys.executable,
            "hash randomization": bool(sys.flags.hash_randomization),
            "default dtype": str(torch.get_default_dtype()),
            "sources": [source.name for source in select_sources()],
            **conditions.code_state(None),
        },
        "settings": dict(zip(SETTINGS.names, SETTINGS.capture(), strict=True)),
        "replacements": available(),
        "environment": {name: os.environ.get(name) for name in _VARIABLES.split()},
    }
