"""MoDL on real complex brain slices seen by eight simulated coils, and on a recorded slice.

Needs `--config.data.folder=`, the folder of `brain_complex_s1.npz` to `_s6.npz` (five subjects to
train on, the sixth to test) and of `brain_8coil.npz`, one slice recorded with eight coils: the test
set `recorded`. Sizes are for two CPU cores.
"""

from ml_collections import ConfigDict

from jitter_jax.config import smug_config


def get_config() -> ConfigDict:
    """Return the config."""
    config = smug_config()
    config.data.kind = "slices"
    config.data.num_validation = 2
    config.data.num_test = 5
    config.data.sampling.axis = 0
    config.data.coils.num = 8
    config.data.coils.file = "brain_8coil.npz"
    config.data.out_of_distribution = ("recorded", "noise", "lesion", "mask", "acceleration")
    config.evaluate.attacked = ("recorded",)
    return config
