"""Compressed sensing of generated pictures by a small ISTA-Net++: runs on any machine.

For image files add `--config.data.kind=pictures --config.data.folder=FOLDER` and the names of a
folder, file or archive in it to train and to test on, `--config.data.images.train=train400.npz
--config.data.images.test=set11 --config.data.images.shape='(256, 256)'`. ISTA-Net++ at its
published size: `--config.network.width=32 --config.unroll.num_iterations=20
--config.train.batch_size=64 --config.optimizer.learning_rate=1e-4`.
"""

from ml_collections import ConfigDict

from jitter_jax.config import compressed_sensing_config


def get_config() -> ConfigDict:
    """Return the config."""
    return compressed_sensing_config()
