"""Single-coil MRI of generated head phantoms: no data needed, minutes on two CPU cores."""

from ml_collections import ConfigDict

from jitter_jax.config import mri_config


def get_config() -> ConfigDict:
    """Return the config; its fields and their choices are listed in `jitter_jax/config.py`."""
    return mri_config()
