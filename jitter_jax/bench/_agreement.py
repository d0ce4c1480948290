"""Parameters, data and loss of the library, which a peer takes over and must agree with."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax.bench import _library
from jitter_jax.bench.cases import Plain, Work
from jitter_jax.metrics import mse


def arrays(config: Plain) -> dict[str, np.ndarray]:
    """Return what a peer needs, by name.

    Returns:
        `params/...`: the parameters by their paths; `signal` and `measurement`, `(batch, height,
        width, 1)`; `mask` if there is one; `loss`: the mean squared error of each reconstruction.
    """
    problem = _library.build(config)
    measured, params = problem.measured(), problem.state.params
    paths = jax.tree_util.tree_leaves_with_path({"params": params})
    found = {"/".join(str(key.key) for key in path): leaf for path, leaf in paths}
    mask = problem.raw.get("mask")

    @jax.jit
    def loss(params: Any, batch: Any):
        def one(params, x, y, operator, key):
            return mse(problem.experiment.reconstructor.apply(params, operator, y), x)

        return batch.lift(partial(one, params), jax.random.key(0))

    found |= {"signal": measured.signal, "measurement": measured.measurement}
    found |= {} if mask is None else {"mask": jnp.asarray(mask)[0]}
    found["loss"] = loss(params, measured)
    return {name: np.asarray(value) for name, value in found.items()}


def make_work(name: str, job: Plain) -> Work:
    """Write the arrays to the job's file."""
    np.savez(job["arrays"], allow_pickle=False, **arrays(job["cases"][name]))
    return Work(lambda: None, 0)
