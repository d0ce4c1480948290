"""The first weights of the published networks, which PyTorch drew by its defaults."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer
from jax.nn import initializers

# Uniform in +-1/sqrt(fan_in): a variance of 1 / (3 fan_in).
uniform_kernel: Initializer = initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Initializer:
    """Returns the initialiser of biases, uniform in `+-1/sqrt(fan_in)`.

    Args:
        fan_in: inputs of one output: kernel height times kernel width times input channels.
    """
    bound = 1 / np.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
