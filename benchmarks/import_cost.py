"""What `from seedscope import seeded` costs on top of torch and NumPy, in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .harness import progress, summary

_IMPORT = """
import json, sys, time, numpy, torch
def heavy():
    tops = ("torch._inductor", "torch._dynamo", "matplotlib")
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
    """Return the milliseconds of the import and of the first scope, and what they load."""
    root = Path(__file__).parents[1]
    runs = []
    for number in range(processes):
        progress(f"import in fresh process {number + 1} of {processes}")
        command = [sys.executable, "-c", _IMPORT]
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    times = {key: summary(run[key] for run in runs) for key in ("import_ms", "first_scope_ms")}
    checks = ("loaded_by_import", "loaded_by_first_scope", "cuda_initialised")
    return {**times, **{key: runs[0][key] for key in checks}}
