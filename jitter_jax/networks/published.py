"""Weights that others published, as networks of this library."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jitter_jax.data.files import as_float32, load_arrays
from jitter_jax.networks.modl_cnn import MoDLCNN

Array = jax.Array
Params = Any

_REGULARISATION = "Wts/lam1"
_NORM = {"scale": "gamma", "bias": "beta"}
_STATISTICS = {"mean": "moving_mean", "var": "moving_variance"}


def load_modl(path: str | Path) -> tuple[MoDLCNN, Params, Array]:
    """Reads a published MoDL network, whose checkpoint has been saved as arrays.

    MoDL is `unroll.half_quadratic` with this network as the learned step:
    `x_{k+1} = (A^H A + lambda I)^-1 (A^H y + lambda f(x_k))`, `x_0 = A^H y`, solved by at most 10
    steps of conjugate gradients from 0. It was trained on images with moduli of about 1 at most.

    Args:
        path: `.npz` file with one array for each variable of the TensorFlow checkpoint under its
            own name: `Wts/Layer<n>/W`, `(3, 3, inputs, outputs)`, and `beta`, `gamma`,
            `moving_mean` and `moving_variance` in `Wts/Layer<n>/BN/`, `(outputs,)`, for
            n = 1, 2, ..., and the scalar `Wts/lam1`.

    Returns:
        The network, its parameters (with the stored statistics of its norms), and `lambda`, a
        float32 scalar.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are not those of such a network.

    Source: Aggarwal, Mani and Jacob, "MoDL" (2019), hkaggarwal/modl.
    """
    arrays = load_arrays(path)
    depth = sum(key.endswith("/W") for key in arrays)
    found = {key: array.shape for key, array in arrays.items()}
    first = found.get("Wts/Layer1/W", ())
    channels, width = first[-2:] if len(first) == 4 else (2, 64)
    expected = _shapes(depth, channels, width)
    wrong = {
        key: (found.get(key), expected.get(key))
        for key in sorted(found.keys() | expected.keys())
        if found.get(key) != expected.get(key)
    }
    if wrong:
        few = dict(list(wrong.items())[:5])
        raise ValueError(
            f"{path}: not a MoDL network; {len(wrong)} arrays have other (found, expected) shapes, "
            f"the first of them {few}"
        )

    values = {key: jnp.asarray(as_float32(path, key, array)) for key, array in arrays.items()}
    weights: dict[str, dict[str, Array]] = {}
    statistics: dict[str, dict[str, Array]] = {}
    for layer in range(depth):
        stored = f"Wts/Layer{layer + 1}"
        weights[f"Conv_{layer}"] = {"kernel": values[f"{stored}/W"]}
        for tree, names in ((weights, _NORM), (statistics, _STATISTICS)):
            tree[f"BatchNorm_{layer}"] = {
                own: values[f"{stored}/BN/{name}"] for own, name in names.items()
            }
    network = MoDLCNN(depth, width, epsilon=1e-3)
    return network, {"params": weights, "batch_stats": statistics}, values[_REGULARISATION]


def _shapes(depth: int, channels: int, width: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the variables, by their names."""
    shapes: dict[str, tuple[int, ...]] = {_REGULARISATION: ()}
    # A network has two layers at least; a file without any lacks these.
    last = max(depth, 2)
    for layer in range(1, last + 1):
        inputs, outputs = channels if layer == 1 else width, channels if layer == last else width
        shapes[f"Wts/Layer{layer}/W"] = (3, 3, inputs, outputs)
        for name in (*_NORM.values(), *_STATISTICS.values()):
            shapes[f"Wts/Layer{layer}/BN/{name}"] = (outputs,)
    return shapes
