"""Randomness is keyed, never carried: each draw's generator follows from (seed, purpose, numbers).

The order of epoch 7's windows does not depend on whether epochs 0 to 6 ran in this process, so a run
that was killed and resumed draws what an undisturbed one draws.
"""

import zlib

import numpy as np


def keyed_generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A generator for one purpose, e.g. ("order of windows", epoch).

    PCG64 seeded through numpy's SeedSequence, whose streams are the same on every platform.
    """
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(purpose.encode()), *numbers]))
