"""oneDNN (`torch.backends.mkldnn`): enabled, deterministic, allow_tf32."""

import torch

from .base import backend_flags

SETTINGS = backend_flags(torch.backends.mkldnn, without=("fp32_precision",))
