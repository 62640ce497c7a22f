"""oneDNN (`torch.backends.mkldnn`): enabled, deterministic, allow_tf32."""

import torch

from .allowed import is_open_flag
from .base import Setting, backend_flags


def _unless_open(flag: Setting) -> Setting:
    """Return a setting that leaves the flag alone if it is None, as without an Intel GPU."""

    def write(value: bool | None) -> None:
        if value is not None:
            flag.write(value)

    return Setting(flag.name, flag.read, write, is_open_flag)


SETTINGS = [
    _unless_open(flag) if flag.name.endswith("allow_tf32") else flag
    for flag in backend_flags(torch.backends.mkldnn, without=("fp32_precision",))
]
