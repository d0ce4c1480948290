"""Multi-coil knees of fastMRI with the settings of the SMUG paper, 4x; for a GPU.

Needs `--config.data.folder=`, the folder of fastMRI's `multicoil_train` and `multicoil_val`, and
the extra `coils` for the maps. For 8x: `--config.data.sampling.acceleration=8`.
"""

from ml_collections import ConfigDict

from jitter_jax.config import smug_as_published, smug_config


def get_config() -> ConfigDict:
    """Return the config."""
    config = smug_as_published(smug_config())
    config.data.images.train = "multicoil_train"
    config.data.images.test = "multicoil_val"
    config.data.coils.num = 15
    return config
