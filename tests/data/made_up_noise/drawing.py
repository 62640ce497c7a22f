"""A module with a generator."""

import numpy as np

rng = np.random.default_rng(3)


def noise():
    return rng.random()
