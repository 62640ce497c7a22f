"""cuDNN: enabled, benchmark, benchmark_limit, deterministic, and the flags of newer torch.

`torch.backends.cudnn.flags(deterministic=True)` would disable cuDNN, since it resets the
flags that it is not given to their defaults. These settings are written one by one.
`allow_tf32` is a precision: see precision.py.
"""

import torch

from .allowed import one_of
from .base import backend_flags

SETTINGS = backend_flags(
    torch.backends.cudnn,
    without=("allow_tf32", "fp32_precision"),
    depthwise_kernel=one_of("auto", "cudnn", "native"),
)
