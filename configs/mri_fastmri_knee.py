"""Single-coil knees of fastMRI with the settings of the SGD-jittering paper; for a GPU.

Needs `--config.data.folder=`, the folder of fastMRI's `singlecoil_train` and `singlecoil_val`.
"""

from ml_collections import ConfigDict

from jitter_jax.config import as_published, mri_config


def get_config() -> ConfigDict:
    """Return the config; what the paper leaves open (slices, normalisation) is said beside it."""
    config = mri_config()
    config.data.kind = "fastmri"
    config.data.images.shape = (320, 320)
    config.data.images.middle = 16  # the ends of a volume hold little but noise
    config.data.num_validation = 20  # volumes
    config.data.num_test = 50
    config.data.noise_std = 0.0  # the recorded k-space has its own
    config.data.sampling.axis = 0  # rows, as the public code
    config.network.depth = 8
    config.network.width = 64
    config.unroll.num_iterations = 10
    config.scheme.jitter.sigma = 0.01
    config.scheme.input_jitter.sigma = 0.05
    config.train.batch_size = 4
    config.train.num_steps = 100_000
    config.train.validate_every = 1000
    config.train.checkpoint_every = 1000
    config.train.log_every = 50
    config.metrics.full_scale = "volume"
    config.metrics.per = "volume"
    config.metrics.ssim_window = "uniform"
    return as_published(config)
