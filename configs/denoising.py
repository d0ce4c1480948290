"""Denoising of generated pictures by a small DPDNN: runs on any machine, in minutes on a CPU.

For image files add `--config.data.kind=pictures --config.data.folder=FOLDER` and the names of a
folder, file or archive in it to train and to test on, `--config.data.images.train=train400.npz
--config.data.images.test=set12`. DPDNN at its published size: `--config.network.width=64
--config.network.depth=4 --config.unroll.num_iterations=6 --config.train.batch_size=32`.
"""

from ml_collections import ConfigDict

from jitter_jax.config import pictures_config


def get_config() -> ConfigDict:
    """Return the config."""
    return pictures_config()
