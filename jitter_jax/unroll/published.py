"""Published weights of any family as a reconstructor that has them from the start."""

from functools import partial
from pathlib import Path

import jax
from jax.typing import ArrayLike

from jitter_jax.data.files import load_arrays
from jitter_jax.networks import published
from jitter_jax.networks.precision import Precision, in_precision
from jitter_jax.operators import LinearOperator
from jitter_jax.solvers import conjugate_gradients, regularised_normal
from jitter_jax.unroll import scalar
from jitter_jax.unroll.half_quadratic import half_quadratic
from jitter_jax.unroll.ista_net import ista_net_plus, ista_net_pp
from jitter_jax.unroll.iterate import Remat
from jitter_jax.unroll.proximal import proximal_gradient
from jitter_jax.unroll.reconstructor import Reconstructor, unrolled

Array = jax.Array


def load_published(
    path: str | Path,
    *,
    num_iterations: int | None = None,
    start_matrix: ArrayLike | None = None,
    precision: Precision = "default",
    remat: Remat = True,
) -> Reconstructor:
    """Returns the reconstructor of published weights, told apart by the names of their arrays.

    Its `init` gives the published parameters whatever the key, so that it evaluates, attacks and
    certifies them, and trains on from them, like any other reconstructor:

    | weights | reconstructor |
    | --- | --- |
    | ISTA-Net++ | `ista_net_pp`, for `block_sampling` at any ratio |
    | ISTA-Net+, ISTA-Net | `ista_net_plus`, for the operator that they were trained for |
    | MoDL | `half_quadratic`, at most 10 steps of conjugate gradients from 0 |
    | DnCNN, SCICO's DnCNN | `proximal_gradient` with a step size of 1: one iteration denoises |

    Args:
        path: `.npz` file; see the functions of `jitter_jax.networks.published` for its arrays.
        num_iterations: `K` of MoDL, 10 if None, and of the denoisers, 1 if None; the other networks
            have phases of their own, and None is expected.
        start_matrix: see `ista_net_plus`; the other networks start elsewhere and do not read it.
        precision: of the products in the networks; see `networks.in_precision`.
        remat: what the backward pass recomputes; see `unroll`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are of no family, `num_iterations` is not
            accepted or `precision` is unknown.
    """
    names = load_arrays(path).keys()
    if any(name.endswith(("conv1_forward", "condition.fc1.weight")) for name in names):
        if num_iterations is not None:
            raise ValueError(
                f"num_iterations must be None for {path}, whose phases have weights of their own, "
                f"got {num_iterations}"
            )
        if any(name.endswith("conv1_forward") for name in names):
            sizes, params = published.load_ista_net_plus(path)
            made = ista_net_plus(
                **sizes, start_matrix=start_matrix, precision=precision, remat=remat
            )
        else:
            sizes, params = published.load_ista_net_pp(path)
            made = ista_net_pp(**sizes, precision=precision, remat=remat)
    elif "Wts/lam1" in names:
        network, weights, regularisation = published.load_modl(path)
        made = unrolled(
            partial(half_quadratic, solve=_from_zero),
            in_precision(network, precision),
            {"regularisation": scalar.fixed(float(regularisation))},
            num_iterations=10 if num_iterations is None else num_iterations,
            remat=remat,
        )
        params = {"network": weights}
    else:
        scico = "params/conv_start/kernel" in names
        load = published.load_scico_dncnn if scico else published.load_dncnn
        denoiser, weights = load(path)
        made = unrolled(
            proximal_gradient,
            in_precision(denoiser, precision),
            {"step_size": scalar.fixed(1.0)},
            num_iterations=1 if num_iterations is None else num_iterations,
            remat=remat,
        )
        params = {"network": weights}
    return made._replace(init=lambda key, operator, y: params)


def _from_zero(
    operator: LinearOperator, b: Array, regularisation: ArrayLike, start: Array
) -> Array:
    del start
    return conjugate_gradients(regularised_normal(operator, regularisation), b)
