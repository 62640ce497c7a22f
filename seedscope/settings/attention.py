"""The kernels that scaled_dot_product_attention may use.

See: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-cuda
"""

from torch.backends import cuda

from .allowed import is_flag
from .base import Setting

SETTINGS = [
    Setting("attention.flash", cuda.flash_sdp_enabled, cuda.enable_flash_sdp, is_flag),
    Setting(
        "attention.mem_efficient",
        cuda.mem_efficient_sdp_enabled,
        cuda.enable_mem_efficient_sdp,
        is_flag,
    ),
    Setting("attention.math", cuda.math_sdp_enabled, cuda.enable_math_sdp, is_flag),
    Setting("attention.cudnn", cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, is_flag),
    Setting(
        "attention.math_reduced_precision",
        cuda.fp16_bf16_reduction_math_sdp_allowed,
        cuda.allow_fp16_bf16_reduction_math_sdp,
        is_flag,
    ),
]
