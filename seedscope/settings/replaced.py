"""Whether operations that torch cannot repeat are replaced."""

from __future__ import annotations

from ..replacements.gate import GATE
from ..replacements.kernels import install
from .allowed import is_flag
from .base import Gated


def _write(is_open: bool) -> None:
    if is_open:
        install()  # before the gate opens: a kernel that is missing would let its operation raise
    GATE.is_open = is_open


# Open before the other settings are strict, and until they are not: an operation of another thread
# would raise in between.
SETTINGS = [Gated("replacements", lambda: GATE.is_open, _write, is_flag)]
