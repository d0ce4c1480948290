"""MoDL on multi-coil MRI of generated head phantoms: no data needed, minutes on two CPU cores.

Vanilla MoDL as it stands; `--config.smoothing.where=end_to_end` is RS-E2E, and
`--config.scheme.name=unrolled_stability --config.smoothing.where=step` SMUG, with
`weighted_step` Weighted SMUG. The first stage trains the denoiser alone.
"""

from ml_collections import ConfigDict

from jitter_jax.config import smug_config


def get_config() -> ConfigDict:
    """Return the config; its fields and their choices are listed in `jitter_jax/config.py`."""
    return smug_config()
