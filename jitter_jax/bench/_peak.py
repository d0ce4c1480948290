"""The speed that the device reaches: one large convolution, one large product of matrices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jitter_jax.bench._jax_device import compile_ahead
from jitter_jax.bench.cases import Plain, Work

# Of accelerators and of CPUs, so that a run takes tens of milliseconds.
_CONVOLUTION = {True: (16, 256, 256, 256), False: (1, 128, 128, 128)}  # batch, side, side, channels
_MATMUL = {True: 8192, False: 1536}
_IN_A_ROW = {True: 10, False: 1}  # calls that wait for one another on the device alone


def make_work(name: str, job: Plain) -> Work:
    """Build the convolution or the product, in the job's precision."""
    large = jax.default_backend() != "cpu"
    given = jnp.bfloat16 if job["precision"] == "bfloat16" else jnp.float32
    precision = lax.Precision.HIGHEST if job["precision"] == "float32" else None
    key_x, key_kernel = jax.random.split(jax.random.key(0))
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    if name == "convolution":
        batch, height, width, channels = _CONVOLUTION[large]
        sums = 9 * channels
        products = sums * channels * batch * height * width
        shapes = (batch, height, width, channels), (3, 3, channels, channels)
        labels = ("NHWC", "HWIO", "NHWC")
        function = lambda x, kernel: lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=labels, precision=precision
        )
    else:
        sums = _MATMUL[large]
        products = sums**3
        shapes = (sums, sums), (sums, sums)
        function = lambda x, kernel: jnp.matmul(x, kernel, precision=precision)
    # Random, as zeros would cost less power; of a size that does not grow from call to call.
    x = jax.random.normal(key_x, shapes[0], given)
    kernel = jax.random.normal(key_kernel, shapes[1], given) / sums**0.5
    compiled, costs = compile_ahead(jax.jit(function), x, kernel)

    def run():
        result = x
        for _ in range(_IN_A_ROW[large]):
            result = compiled(result, kernel)
        return jax.block_until_ready(result)

    return Work(run, 0, gflop=1e-9 * 2 * products * _IN_A_ROW[large], **costs)
