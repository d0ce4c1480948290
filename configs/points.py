"""Denoising one point of the plane, the toy problem of the SGD-jittering paper; seconds on CPU.

The paper leaves the step size, the learning rate's schedule and the number of steps open; it
trains with a rate of 1e-4 in batches of 256 and attacks in 50 steps while training.
"""

from ml_collections import ConfigDict

from jitter_jax.config import default_config


def get_config() -> ConfigDict:
    """Return the config."""
    config = default_config()
    config.data.kind = "points"
    config.data.num_train = 200
    config.data.num_validation = 50
    config.data.num_test = 50
    config.data.out_of_distribution = ("small_bias", "large_bias")
    config.data.noise_std = 0.1  # a variance of 0.01
    config.data.normalisation = "none"

    config.operator.name = "identity"
    config.network.name = "mlp"
    config.network.depth = 3
    config.network.width = 32
    config.unroll.sees_measurement = False  # as in the paper; True is f(y, x)
    config.unroll.step_size.name = "exponential"

    config.scheme.jitter.kind = "absolute"
    config.scheme.jitter.sigma = 0.1
    config.scheme.input_jitter.sigma = 0.1

    config.optimizer.schedule = "constant"
    config.train.batch_size = 200
    config.train.num_steps = 3000
    config.train.log_every = 100
    config.train.validate_every = 1000
    config.train.checkpoint_every = 1000

    config.metrics.names = ("risk", "psnr")
    for threat in (config.scheme.adversarial.threat, config.evaluate.threat):
        threat.epsilon = 0.01
        threat.unit = "absolute"
    config.scheme.adversarial.attack.num_steps = 10
    config.evaluate.attack.restarts = 2
    return config
