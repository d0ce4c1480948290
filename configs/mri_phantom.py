"""Single-coil MRI of generated head phantoms: no data needed, minutes on two CPU cores."""

from ml_collections import ConfigDict

from jitter_jax.config import default_config


def get_config() -> ConfigDict:
    """Return the config."""
    config = default_config()
    config.data.kind = "phantoms"
    config.data.num_train = 200
    config.data.normalisation = "none"  # phantoms have a largest magnitude of 1
    config.data.noise_std = 0.01
    config.data.fresh_noise = True
    config.data.out_of_distribution = ("lesion", "contrast", "mask", "acceleration", "noise")
    config.operator.name = "cartesian_mri"
    config.network.name = "dncnn"
    config.network.width = 16
    config.network.depth = 5
    config.unroll.num_iterations = 5
    config.unroll.start = "adjoint"
    config.unroll.sees_measurement = False
    config.unroll.step_size.name = "exponential"
    config.scheme.jitter.sigma = 0.1
    config.scheme.input_jitter.sigma = 0.02
    config.metrics.part = "magnitude"
    return config
