"""Seismic deconvolution of generated sections: the default, minutes on two CPU cores."""

from ml_collections import ConfigDict

from jitter_jax.config import default_config


def get_config() -> ConfigDict:
    """Return the config; its fields and their choices are listed in `jitter_jax/config.py`."""
    return default_config()
