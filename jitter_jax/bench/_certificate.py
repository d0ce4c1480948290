"""A certificate of the library's, in one program or as a loop in Python over its draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax import certify
from jitter_jax.bench._jax_device import compile_ahead
from jitter_jax.bench.cases import Work
from jitter_jax.data.batch import Batch
from jitter_jax.experiment import Experiment
from jitter_jax.metrics import mse


def _budget(experiment: Experiment) -> certify.Budget:
    # The work does not hang on what is certified.
    num_samples = experiment.config.smoothing.num_samples
    return certify.Budget(0.0, 0.1, num_samples=num_samples, confidence=0.5, pixel_range=None)


def certify_one(experiment: Experiment):
    """Return what bounds how far an attack moves the reconstruction of one signal."""
    budget, chunk = _budget(experiment), experiment.config.smoothing.chunk

    def certified(params, x, y, operator, key):
        del x
        f = lambda y: experiment.reconstructor.apply(params, operator, y)
        certificate = certify.certified_discrepancy(
            f, operator, y, budget=budget, key=key, chunk=chunk
        )
        return certificate.bound

    return certified


def loop(experiment: Experiment, params: Any, measured: Batch) -> Work:
    """Return the same bounds of a batch, draw by draw."""
    budget, key = _budget(experiment), jax.random.key(0)

    def one_draw(params, y, operator, key, number, reference):
        f = lambda y: experiment.reconstructor.apply(params, operator, y)
        drawn = certify.draw(f, operator, y, sigma=budget.sigma, key=key, number=number)
        return mse(drawn, reference)

    @jax.jit
    def reconstruct(params, batch):
        one = lambda x, y, operator, key: experiment.reconstructor.apply(params, operator, y)
        return batch.lift(one, key)

    @jax.jit
    def draw(params, batch, *more):
        one = lambda x, y, operator, key, *more: one_draw(params, y, operator, key, *more)
        return batch.lift(one, key, *more)

    numbers = jnp.zeros(len(measured.signal), jnp.int32)
    draw, costs = compile_ahead(draw, params, measured, numbers, reconstruct(params, measured))

    def run():
        reference = reconstruct(params, measured)
        losses = [
            np.asarray(draw(params, measured, numbers + s, reference))
            for s in range(budget.num_samples)
        ]
        return np.sort(losses, axis=0)[budget.rank() - 1]

    return Work(run, sum(leaf.size for leaf in jax.tree.leaves(params)), **costs)
