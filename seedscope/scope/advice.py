"""What to do: notes for errors of torch that name no remedy, and the text of a warning."""

from __future__ import annotations

import re

from ..replacements.gate import GATE, is_alert
from ..replacements.kernels import IS_SUPPORTED

_CUBLAS = "seedscope: this version of torch reads CUBLAS_WORKSPACE_CONFIG"
_RAISED = "seedscope: raised because deterministic algorithms are on."

WORKERS = (
    "worker processes started during this block ({count}) do not follow its seed by themselves: "
    "what they draw differs each time, or is the same in each worker. Pass each task a seed of its "
    'own, `scope.derive("task", i)`, and enter `seeded(seed)` in the task; or pass scikit-learn '
    '`random_state=scope.derive("forest") % 2**32`; or let seedscope.sweep run the tasks; or seed '
    "the only worker of a pool in an initializer. Then this warning can be ignored"
)


def explain(error: BaseException | None) -> None:
    """Add the remedy to torch's error if an operation has no deterministic implementation."""
    if not isinstance(error, RuntimeError):
        return
    notes = getattr(error, "__notes__", [])
    if any(note.startswith((_CUBLAS, _RAISED)) for note in notes):
        return  # an inner scope has told
    text = " ".join(arg for arg in error.args if isinstance(arg, str))
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        error.add_note(
            f"{_CUBLAS} only at the first cuBLAS call of the process, which came before this "
            "block. Set the variable before Python starts: `seedscope run SCRIPT`, or "
            "CUBLAS_WORKSPACE_CONFIG=:4096:8 python SCRIPT"
        )
    elif is_alert(text):
        is_told = any("was refused here" in note for note in notes)
        own = "give this one a form that repeats (seedscope.register_replacement), or "
        why, own = ("", "") if is_told else (f"{_replacement(text)} ", own)
        error.add_note(
            f"{_RAISED} {why}To go on, use another operation, or {own}use "
            'seeded(..., deterministic="warn"): the operation then runs, warns, and may give '
            "another result each time."
        )


def _replacement(alert: str) -> str:
    """Return a sentence that says what seedscope has in place of the operation of an alert."""
    from ..replacements.built_in import BUILT_IN  # on use: an import would slow down each start

    found = next((one for one in BUILT_IN if re.search(rf"\b{one.alert}", alert)), None)
    if found is None:
        return "seedscope has no replacement of its own for this operation."
    if not IS_SUPPORTED:
        return f"With torch 2.9 or newer seedscope would run {found.operation} so that it repeats."
    if not GATE.is_open:
        return (
            f"seedscope's replacement of {found.operation} is off here: in a block with "
            "deterministic=True and replacements=True, the defaults, it would run."
        )
    devices = " and ".join(found.devices)
    return (
        f"seedscope replaces {found.operation} where it runs on {devices}. On another device, and "
        "while torch.compile, torch.export or a fake tensor traces it, torch's own code raises: "
        "trace it outside of the block, or keep it out of the graph with torch.compiler.disable."
    )
