"""All replacements that seedscope has; `register_replacement` adds others."""

from . import (
    average_pooling,
    ctc_loss,
    grid_sampling,
    last_writer,
    max_pooling,
    nll_loss,
    padding,
    upsampling,
)

BUILT_IN = (
    *average_pooling.REPLACEMENTS,
    *upsampling.REPLACEMENTS,
    *max_pooling.REPLACEMENTS,
    *padding.REPLACEMENTS,
    *nll_loss.REPLACEMENTS,
    *grid_sampling.REPLACEMENTS,
    *ctc_loss.REPLACEMENTS,
    *last_writer.REPLACEMENTS,
)
