"""The cost of the import of `seeded`, the first scope and the help, in fresh processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .harness import progress, summary

_IMPORT = """
import json, sys, time, numpy, torch
def heavy():
    tops = ("torch._inductor", "torch._dynamo", "matplotlib", "wrapt", "numpy.random")
    return {name for name in tops if name in sys.modules}
before = heavy()
begin = time.perf_counter(); from seedscope import seeded; imported = time.perf_counter()
after_import = heavy() - before
with seeded(1029): pass
entered = time.perf_counter()
print(json.dumps({
    "import_ms": 1e3 * (imported - begin), "first_scope_ms": 1e3 * (entered - imported),
    "loaded_by_import": sorted(after_import),
    "loaded_by_first_scope": sorted(heavy() - before - after_import),
    "cuda_initialised": torch.cuda.is_initialized()}))
"""


def import_cost(processes: int = 7) -> dict[str, Any]:
    """Return milliseconds of import, first scope and help, and the heavy modules that load."""
    runs: list[dict[str, Any]] = []
    commands = {"help_ms": ["-m", "seedscope", "--help"], "python_ms": ["-c", "pass"]}
    with compiling() as environ:
        for number in range(processes + 1):
            progress(f"import in fresh process {number} of {processes}")
            run = json.loads(python(["-c", _IMPORT], environ))
            for name, command in commands.items():
                begin = time.perf_counter()
                python(command, environ)
                run[name] = 1e3 * (time.perf_counter() - begin)
            runs.append(run)
    keys = ("import_ms", "first_scope_ms", *commands)
    times = {key: summary(run[key] for run in runs[1:]) for key in keys}
    checks = ("loaded_by_import", "loaded_by_first_scope", "cuda_initialised")
    return {**times, **{key: runs[0][key] for key in checks}}


@contextmanager
def compiling() -> Iterator[dict[str, str]]:
    """Give variables for processes: the first compiles the package, as an installation would."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        yield environ


def python(arguments: list[str], environ: dict[str, str]) -> str:
    """Return what Python prints in a fresh process at the root of the repository."""
    root = Path(__file__).parents[1]
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=root, env=environ, check=True, capture_output=True, text=True
    )
    return done.stdout
