"""What every set of coil maps must be, wherever it comes from; NumPy alone."""

import numpy as np

_UNIT_TOLERANCE = 1e-3


def check_unit(maps: np.ndarray) -> None:
    """Raises ValueError unless `sum_c |s_c|^2 = 1` wherever maps are not zero.

    Args:
        maps: sensitivities `s_c`, `(..., coils)`, real or complex.
    """
    power = np.sum(np.abs(maps) ** 2, axis=-1)
    deviation = np.max(np.abs(power[power != 0] - 1), initial=0.0)
    if not deviation <= _UNIT_TOLERANCE:
        raise ValueError(
            "maps must have a sum of squares of 1 where they are not zero, got a deviation of "
            f"{deviation:.3g}; operators.normalise_maps makes them so"
        )
