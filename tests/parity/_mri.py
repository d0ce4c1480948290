"""Accelerated magnetic resonance imaging: `sgdj_mri_small`, `sgdj_mri_64`, `sgdj_mri_320`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _runs import Problem, pack_signal, runs
from _weights import Arrays, layers, parameters

from jitter_jax import networks, operators, sampling, unroll

_AXES = (-3, -2)


def _unpack_signal(x) -> jax.Array:
    channels = jnp.moveaxis(x, -3, -1)
    return jax.lax.complex(channels[..., :1], channels[..., 1:])


def _unpack_measurement(y) -> jax.Array:
    """Turns un-centred k-space, real and imaginary part last, into centred complex k-space."""
    return jnp.fft.fftshift(jax.lax.complex(y[..., :1], y[..., 1:]), _AXES)


def _pack_measurement(k: jax.Array) -> jax.Array:
    return unroll.to_channels(jnp.fft.ifftshift(k, _AXES))


def mri_problem(weights: Arrays, prefix: str) -> Problem:
    """Returns the published reconstruction, with a network of the size of the weights."""
    names = layers(weights, prefix)
    convolutions = [layer for layer, name in names.items() if name.startswith("Conv")]
    width = weights[f"{prefix}{convolutions[0]}.weight"].shape[0]
    return Problem(
        networks.DnCNN(len(convolutions), width),
        unroll.scalar.exponential(),
        unpack_signal=_unpack_signal,
        unpack_measurement=_unpack_measurement,
        pack_measurement=_pack_measurement,
    )


def mri_operator(mask: np.ndarray, width: int) -> operators.LinearOperator:
    """Returns the operator of a golden mask of rows, `(1, height, 1)`."""
    rows = mask[0] != 0
    return operators.cartesian_mri_repo(np.broadcast_to(rows, (rows.size, width)))


def mri(arrays: Arrays, *, out_every: int = 1) -> Arrays:
    """Returns the outputs of a file of image reconstructions.

    Args:
        arrays: the file.
        out_every: distance of the rows that the file holds of `<run>/out`.
    """
    params, problem = parameters(arrays, "w/"), mri_problem(arrays, "w/")
    operator = mri_operator(arrays["mask"], arrays["X"].shape[-1])
    out = _outputs(params, operator, arrays["X"], arrays.get("y"), problem=problem)
    out |= {f"{key}_rows8": out[key][:, :, ::8] for key in ("adjoint_y", "gramian_X", "R_of_X")}
    out["n_params_R"] = sum(leaf.size for leaf in jax.tree.leaves(params["network"]))
    out["mask"] = _mask(arrays)
    # The file without measurements has them free of noise.
    y = arrays.get("y", out["forward_X"])
    found = runs(problem, operator, arrays, start=out["adjoint_y"], y=y)
    for run in (key.removesuffix("/out") for key in list(found) if key.endswith("/out")):
        found |= {f"{run}/{key}": value for key, value in _totals(found, run).items()}
        found[f"{run}/out"] = found[f"{run}/out"][:, :, ::out_every]
    return out | found


@partial(jax.jit, static_argnames="problem")
def _outputs(params, operator, signal, y, *, problem) -> dict[str, jax.Array]:
    x = problem.unpack_signal(signal)
    forward, adjoint = jax.vmap(operator.forward), jax.vmap(operator.adjoint)
    measured = forward(x) if y is None else problem.unpack_measurement(y)
    network = jax.vmap(partial(problem.network.apply, params["network"]))
    return {
        "forward_X": problem.pack_measurement(forward(x)),
        "adjoint_y": pack_signal(adjoint(measured)),
        "gramian_X": pack_signal(adjoint(forward(x))),
        "R_of_X": pack_signal(network(unroll.to_channels(x))),
    }


def _mask(arrays: Arrays) -> np.ndarray:
    """Returns the mask that the peer's operator draws for itself, always with seed 10."""
    shape, acceleration = arrays["X"].shape[-2:], arrays["cfg/acc"].item()
    fraction = arrays["cfg/center_fraction"].item()
    lines = sampling.gaussian_lines(
        shape, acceleration, seed=10, center_fraction=fraction, axis=0
    ).array[:, :1]
    return lines[None].astype(arrays["X"].dtype)


def _totals(found: Arrays, run: str) -> Arrays:
    """Returns what the files hold in place of arrays that are too large for them."""
    whole = np.asarray(found[f"{run}/out"], np.float64)
    gradients = {
        key.rpartition("/")[2]: np.asarray(value, np.float64)
        for key, value in found.items()
        if key.startswith(f"{run}/grad/")
    }
    return {
        "out_sum": whole.sum((0, 2, 3)),
        "out_l2": np.sqrt(np.square(whole).sum((0, 2, 3))),
        "grad_norm/names": np.array(list(gradients)),
        "grad_norm/values": np.array([np.linalg.norm(g) for g in gradients.values()]),
    }
