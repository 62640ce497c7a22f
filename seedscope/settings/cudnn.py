"""cuDNN: enabled, benchmark, benchmark_limit, deterministic, and what newer torch adds.

`torch.backends.cudnn.flags(deterministic=True)` would switch cuDNN off, since flags
that are not named take their defaults there: only what is named is changed here.
`allow_tf32` is a precision, see precision.py.
"""

import torch

from .base import backend_flags

SETTINGS = backend_flags(torch.backends.cudnn, without=("allow_tf32", "fp32_precision"))
