"""Seismic deconvolution at the size and with the settings of the SGD-jittering paper; for a GPU."""

from ml_collections import ConfigDict

from jitter_jax.config import as_published, default_config


def get_config() -> ConfigDict:
    """Return the config; what the paper leaves open (data, schedule) is as in the default."""
    config = default_config()
    config.data.sections.shape = (352, 352)
    config.data.num_train = 2000
    config.data.num_validation = 50
    config.data.num_test = 50
    config.network.name = "dncnn"
    config.network.depth = 5
    config.network.width = 64
    config.scheme.jitter.sigma = 0.1
    config.train.batch_size = 16
    config.train.num_steps = 16000  # 130 epochs, as the public code
    config.train.validate_every = 500
    config.train.checkpoint_every = 500
    config.train.log_every = 50
    return as_published(config)
