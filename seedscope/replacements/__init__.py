"""Operations that torch cannot repeat, and kernels in their place that repeat bit for bit."""

from .kernels import remove

__all__ = ["remove"]
