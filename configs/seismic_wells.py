"""Deconvolution trained on layering from two real wells and tested on a third.

Needs `--config.data.folder=`, the folder of `f3_wells.npz` (logs of three wells of the F3 block,
Dutch North Sea). A network trained so can be applied to recorded sections of that block by
`bin/reconstruct`: the wavelet is the Ricker wavelet whose spectrum fits theirs best.
"""

from ml_collections import ConfigDict

from jitter_jax.config import default_config


def get_config() -> ConfigDict:
    """Return the config."""
    config = default_config()
    config.data.kind = "wells"
    config.operator.wavelet_width = 1.25  # samples of 4 ms: a peak frequency of 45 Hz
    # ||A||^2 is 5 for this wavelet and 54 for the wider default, so steps may be longer.
    config.unroll.step_size.scale = 0.3
    # Beside a clean y, f(y, x) learns to pass the jitter by: it maps y to x in one go.
    config.unroll.sees_measurement = False
    config.scheme.jitter.sigma = 0.1
    return config
