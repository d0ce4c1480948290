"""Single-coil MRI of complex brain slices: trained on five subjects, tested on a sixth.

Needs `--config.data.folder=`, the folder of `brain_complex_s1.npz` to `_s6.npz` and
`knee_complex.npz`: axial, coronal and sagittal slices with their phase, and another anatomy. The
size is for two CPU cores; with a GPU add `--config.data.images.shape='(256, 256)'
--config.network.depth=8 --config.network.width=64 --config.unroll.num_iterations=10`.
"""

from ml_collections import ConfigDict

from jitter_jax.config import mri_config


def get_config() -> ConfigDict:
    """Return the config."""
    config = mri_config()
    config.data.kind = "slices"
    config.data.images.shape = (96, 96)
    config.data.num_validation = 2
    config.data.num_test = 5
    config.data.sampling.axis = 0
    config.data.out_of_distribution = (
        "lesion",
        "coronal",
        "sagittal",
        "anatomy",
        "contrast",
        "mask",
        "acceleration",
        "noise",
    )
    config.train.batch_size = 2
    config.train.num_steps = 1000
    return config
