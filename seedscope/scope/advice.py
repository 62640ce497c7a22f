"""What to do: notes for errors of torch that name no remedy, and the text of a warning."""

from __future__ import annotations

from ..replacements.gate import GATE, is_alert
from ..replacements.kernels import IS_SUPPORTED

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
    text = " ".join(arg for arg in error.args if isinstance(arg, str))
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        note = (
            "seedscope: this version of torch reads CUBLAS_WORKSPACE_CONFIG only at the first "
            "cuBLAS call of the process, which came before this block. Set the variable before "
            "Python starts: `seedscope run SCRIPT`, or "
            "CUBLAS_WORKSPACE_CONFIG=:4096:8 python SCRIPT"
        )
    elif is_alert(text):
        is_told = any("was refused here" in told for told in getattr(error, "__notes__", []))
        why = "" if is_told else f"{_replacement(text)} "
        note = (
            f"seedscope: raised because the block has deterministic=True. {why}"
            "Otherwise use another operation, or give this one a form that repeats "
            '(seedscope.register_replacement), or use seeded(..., deterministic="warn"): the '
            "operation then runs, warns, and may give another result each time."
        )
    else:
        return
    if note in getattr(error, "__notes__", []):
        return  # an inner scope has added the note
    error.add_note(note)


def _replacement(alert: str) -> str:
    """Return a sentence that says what seedscope has in place of the operation of an alert."""
    from ..replacements.built_in import BUILT_IN  # on use: an import would slow down each start

    found = next((one for one in BUILT_IN if one.alert and alert.startswith(one.alert)), None)
    if found is None:
        return "seedscope has no replacement for this operation."
    if not IS_SUPPORTED:
        return f"With torch 2.9 or newer seedscope would run {found.operation} so that it repeats."
    if not GATE.is_open:
        return (
            f"seedscope's replacement of {found.operation} was switched off: with "
            "replacements=True, the default, it would run."
        )
    devices = " and ".join(found.devices)
    return f"seedscope replaces {found.operation} on {devices}; on this device it did not."
