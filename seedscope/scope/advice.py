"""What torch's errors do not say: what to do about them."""

from __future__ import annotations


def explain(error: BaseException | None) -> None:
    """Add to torch's error what to do where an operation has no deterministic implementation."""
    if not isinstance(error, RuntimeError):
        return
    text = " ".join(arg for arg in error.args if isinstance(arg, str))
    if "CUBLAS_WORKSPACE_CONFIG" in text:
        note = (
            "seedscope: this version of torch reads CUBLAS_WORKSPACE_CONFIG at the first cuBLAS "
            "call of the process, which was before this block. `seedscope run SCRIPT` sets it "
            "before Python starts; so does CUBLAS_WORKSPACE_CONFIG=:4096:8 python SCRIPT"
        )
    elif "deterministic implementation" in text:
        note = (
            "seedscope: raised because the block has deterministic=True. Either replace the "
            'operation by one that repeats, or use seeded(..., deterministic="warn"): then the '
            "operation runs, warns, and may give another result each time."
        )
    else:
        return
    if note in getattr(error, "__notes__", []):
        return  # an inner scope has added it
    error.add_note(note)
