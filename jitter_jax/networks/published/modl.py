"""Published MoDL."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from jitter_jax.networks.modl_cnn import MoDLCNN
from jitter_jax.networks.published._arrays import Shapes, read_arrays, size

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
    values = read_arrays(path, "a MoDL network", _shapes)
    depth = _depth(values)
    width = values["Wts/Layer1/W"].shape[-1]
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


def _depth(names: Iterable[str]) -> int:
    return sum(name.endswith("/W") for name in names)


def _shapes(found: Shapes) -> Shapes:
    channels = size(found, "Wts/Layer1/W", 2, num_axes=4, default=2)
    width = size(found, "Wts/Layer1/W", 3, num_axes=4, default=64)
    shapes: Shapes = {_REGULARISATION: ()}
    # A network has two layers at least; a file without any lacks these.
    last = max(_depth(found), 2)
    for layer in range(1, last + 1):
        inputs, outputs = channels if layer == 1 else width, channels if layer == last else width
        shapes[f"Wts/Layer{layer}/W"] = (3, 3, inputs, outputs)
        for name in (*_NORM.values(), *_STATISTICS.values()):
            shapes[f"Wts/Layer{layer}/BN/{name}"] = (outputs,)
    return shapes
