"""Runs that take no training: their first parameters, in a run's folder."""

from configs import smug_phantom
from jitter_jax import experiment as experiments
from jitter_jax import train
from jitter_jax.commands.runs import start


def tiny_config(where="none"):
    """Two coils, 16 x 16 pixels, one unrolled step; smoothed over two samples."""
    config = smug_phantom.get_config()
    config.data.update(
        {"num_train": 4, "num_validation": 2, "num_test": 4, "out_of_distribution": ()}
    )
    config.data.images.shape = (16, 16)
    config.data.coils.num = 2
    config.data.sampling.acceleration = 2.0
    config.network.update({"name": "modl_cnn", "width": 4, "depth": 2})
    config.unroll.num_iterations = 1
    config.unroll.solver.num_iterations = 3
    config.smoothing.update({"where": where, "num_samples": 2, "weight_width": 4, "chunk": 2})
    config.evaluate.attack.num_steps = 2
    return config


def write_run(folder, config):
    """Writes what training leaves before its first step, and returns the folder."""
    experiment = experiments.build(config)
    train.save_config(folder, experiment.config)
    with train.Checkpoints(folder) as checkpoints:
        checkpoints.save(start(experiment)[0], {})
    return folder
