"""ISTA-Net++: its phases, the numbers of its condition, and derivatives of its loss."""

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _weights import Arrays

from jitter_jax import metrics, operators, unroll
from jitter_jax.data import load_arrays
from jitter_jax.networks import ConditionNetwork
from jitter_jax.networks.published import load_ista_net_pp

Array = jax.Array

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDEN = Path(os.environ.get("JITTER_JAX_GOLDEN") or SHARED / "golden")
WEIGHTS = Path(os.environ.get("JITTER_JAX_WEIGHTS") or SHARED / "weights")
# Two files that `ista_netpp_published` does not hold: the checkpoint, and the one with its matrix.
CHECKPOINT, OTHER = WEIGHTS / "ista_net_pp.npz", GOLDEN / "ista_netpp.npz"

_SIDE, _PEAK = 33, 255
# The phases, the ratios in per cent and the sizes of images that the files show.
_PHASES, _RATIOS = (0, 1, 10), (10, 20, 30, 40, 50)
_SHAPES = ((66, 66), (50, 70), (33, 100), (256, 256))
# The layers whose gradients they show; of the others they have the norms.
_STORED = ("fcs.0.head_conv.", "fcs.0.tail_conv.", "fcs.19.", "condition.")


def ista_net_pp(arrays: Arrays) -> Arrays:
    """Returns the outputs of `ista_netpp`, in the order of the state dict where that shows."""
    weights = {key.removeprefix("w/"): a for key, a in arrays.items() if key.startswith("w/")}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.npz"
        np.savez(path, **weights)
        sizes, params = load_ista_net_pp(path)
    x, ratio = arrays["x"], arrays["cfg/ratio"].item()
    loss, gradient, out = _run(params, x, arrays["Phi"], sizes=tuple(sizes.items()), ratio=ratio)
    gradient = _state_dict(gradient, **sizes)
    kept = {key: g for key, g in gradient.items() if key.startswith(_STORED)}
    return {
        **out,
        **_conditions(params, x.dtype, **sizes),
        "n_params": _count(params),
        "loss": loss,
        "grad_norm/names": np.array(list(gradient)),
        "grad_norm/values": np.array([np.linalg.norm(g) for g in gradient.values()]),
        **{f"grad/{key}": g for key, g in kept.items()},
        **{f"pad/{height}x{width}": _padded(height, width) for height, width in _SHAPES},
        "psnr/value": metrics.psnr(arrays["psnr/a"], arrays["psnr/b"], peak=_PEAK),
    }


def ista_net_pp_published(arrays: Arrays) -> Arrays:
    """Returns the outputs of `ista_netpp_published`, but for the digest of the checkpoint.

    Raises:
        FileNotFoundError: there is no checkpoint, or no `ista_netpp` with the matrix.
    """
    sizes, params = load_ista_net_pp(CHECKPOINT)
    x, ratio = arrays["x"], arrays["cfg/ratio"].item()
    matrix = load_arrays(OTHER, keys=("Phi",))["Phi"].astype(x.dtype)
    _, _, out = _run(params, x, matrix, sizes=tuple(sizes.items()), ratio=ratio)
    keys = [f"module.{key}" for key in _state_dict(params, **sizes)]
    shown = ("x0", "out", *(f"phase{phase}_out" for phase in _PHASES), "cond_in")
    return {
        **{key: out[key] for key in shown},
        **_conditions(params, x.dtype, **sizes),
        "state_dict_keys": np.array(keys),
        "n_params": _count(params),
        "psnr": metrics.psnr(np.clip(out["out"], 0, 1), x),
    }


@partial(jax.jit, static_argnames=("sizes", "ratio"))
def _run(params: Any, x: Array, matrix: Array, *, sizes, ratio: int) -> tuple[Array, Any, Arrays]:
    """Returns the loss, its gradient, and what happened on the way to it."""
    condition = jnp.asarray(ratio / 100, x.dtype)
    net = unroll.ista_net_pp(**dict(sizes), ratio=lambda operator: condition)
    signal = jnp.moveaxis(x[0], 0, -1)
    operator = operators.block_sampling(matrix, shape=signal.shape[:2])
    y = operator.forward(signal)

    def loss(params):
        trajectory = net.apply(params, operator, y, return_trajectory=True)
        return metrics.mse(trajectory[-1], signal), trajectory

    params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), params)
    (value, trajectory), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    images = jnp.moveaxis(trajectory, -1, 1)[:, None]
    out = {
        "measurement": y.transpose(3, 2, 0, 1),
        "gram_x": jnp.moveaxis(operators.normal(operator).forward(signal), -1, 0)[None],
        "x0": images[0],
        "out": images[-1],
        **{f"phase{phase}_out": images[phase + 1] for phase in _PHASES},
        # The noise level beside the ratio is not used.
        "cond_in": jnp.stack([condition, jnp.zeros_like(condition)])[None],
    }
    return value, gradient, out


def _conditions(params: Any, dtype: Any, *, num_phases: int, width: int, num_blocks: int) -> Arrays:
    del width, num_blocks
    of_condition, out = partial(ConditionNetwork(2 * num_phases).apply, params["condition"]), {}
    for ratio in _RATIOS:
        step_sizes, levels = jnp.split(of_condition(jnp.asarray(ratio / 100, dtype)), 2)
        out |= {f"cond/ratio{ratio}/lam": step_sizes, f"cond/ratio{ratio}/sigma": levels}
    return out


def _state_dict(params: Any, *, num_phases: int, width: int, num_blocks: int) -> Arrays:
    """Turns parameters, or gradients, into those of torch: inverts `load_ista_net_pp`."""
    del width
    network, condition, out = params["network"]["params"], params["condition"]["params"], {}
    for phase in range(num_phases):
        for layer, name in enumerate(_layers(num_blocks)):
            kernel, bias = (network[f"Conv_{layer}"][key][phase] for key in ("kernel", "bias"))
            out[f"fcs.{phase}.{name}.weight"] = np.asarray(kernel).transpose(3, 2, 0, 1)
            out[f"fcs.{phase}.{name}.bias"] = np.asarray(bias)
    for layer in range(3):
        own = condition[f"Dense_{layer}"]
        out[f"condition.fc{layer + 1}.weight"] = np.asarray(own["kernel"]).T
        out[f"condition.fc{layer + 1}.bias"] = np.asarray(own["bias"])
    return out


def _layers(num_blocks: int) -> list[str]:
    blocks = [f"ResidualBlocks.{block}.conv{n}" for block in range(num_blocks) for n in (1, 2)]
    return ["head_conv", *blocks, "tail_conv"]


def _count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _padded(height: int, width: int) -> np.ndarray:
    """Returns the size after the peer's padding, which adds a row and a column at least."""
    matrix, image = np.ones((1, _SIDE**2), np.float32), jnp.zeros((height + 1, width + 1, 1))
    operator = operators.block_sampling(matrix, shape=image.shape[:2])
    whole, _ = operators.whole_blocks(operator)
    padded = jax.eval_shape(lambda x: whole.adjoint(operator.forward(x)), image)
    return np.array(padded.shape[:2])
