"""What to do: notes for errors of torch that name no remedy, and the text of a warning."""

from __future__ import annotations

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
    elif "deterministic implementation" in text:
        note = (
            "seedscope: raised because the block has deterministic=True. Either replace the "
            'operation by one that repeats, or use seeded(..., deterministic="warn"): the '
            "operation then runs, warns, and may give another result each time."
        )
    else:
        return
    if note in getattr(error, "__notes__", []):
        return  # an inner scope has added the note
    error.add_note(note)
