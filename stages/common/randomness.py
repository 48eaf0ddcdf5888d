"""Keyed random generators: every draw follows from a seed, a purpose and some numbers.

The order of the windows in epoch 7 does not depend on whether epochs 0 to 6 ran in this process. So a
run that was killed and resumed draws what an undisturbed run draws.
"""

import zlib

import numpy as np


def keyed_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """Create the generator for one purpose.

    It is PCG64 seeded through numpy's `SeedSequence`, which gives the same draws on every platform.

    Args:
        seed: the random seed of the section of `params.yaml`.
        purpose: what the draws are for, for example "order of windows".
        *numbers: what else the draws depend on, for example the epoch.

    Returns:
        A generator that depends on these arguments alone.
    """
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(purpose.encode()), *numbers]))
