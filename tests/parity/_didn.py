"""The networks of SMUG: `smug_didn`, and the weight encoder in `smug_modl`."""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _weights import Arrays

from jitter_jax import metrics
from jitter_jax.networks import DIDN
from jitter_jax.networks.didn import DownUp


def didn(arrays: Arrays) -> Arrays:
    """Returns the outputs of the file, save how the peer pads and which sizes it refuses."""
    weights = {
        key.removeprefix("w/"): value for key, value in arrays.items() if key.startswith("w/")
    }
    names = didn_names(weights)
    params = didn_parameters(weights)
    network = DIDN(arrays["cfg/num_chans"].item(), arrays["cfg/n_res_blocks"].item())
    (loss, out), (grad, grad_x) = _derivatives(
        params, arrays["x"], arrays["target"], network=network
    )
    block = {"params": params["params"]["DownUp_0"]}
    bare = network.clone(residual=False)
    return {
        "out": out,
        "loss": loss,
        "grad_x": grad_x,
        **{f"grad/{key}": _stored(grad["params"], place) for key, place in names.items()},
        "block0_out": _apply(block, arrays["block0_in"], network=DownUp()),
        "nopad_nores_out": _apply(params, arrays["nopad_nores_in"], network=bare),
        **{f"n_params/chans{width}": _count(DIDN(width)) for width in (8, 32, 64)},
    }


def didn_names(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the place of each entry of a state dict, in its order, among our parameters."""
    places: dict[str, tuple[str, ...]] = {}
    counts = Counter[tuple[str, ...]]()
    layers: dict[str, tuple[str, ...]] = {}
    for key in keys:
        layer, _, entry = key.rpartition(".")
        scope, _, name = layer.rpartition(".")
        parent = (f"DownUp_{scope.rpartition('.')[2]}",) if scope else ()
        activation = name.startswith("relu")
        if layer not in layers:
            kind = (*parent, "PReLU" if activation else "Conv")
            layers[layer] = (*parent, f"{kind[-1]}_{counts[kind]}")
            counts[kind] += 1
        weight = "negative_slope" if activation else "kernel"
        places[key] = (*layers[layer], weight if entry == "weight" else entry)
    return places


def didn_parameters(weights: Arrays) -> Any:
    """Turns a state dict of the peer's DIDN into this library's parameters."""
    params: dict[str, Any] = {}
    for key, place in didn_names(weights).items():
        tree = params
        for name in place[:-1]:
            tree = tree.setdefault(name, {})
        value = weights[key]
        if place[-1] == "kernel":
            value = value.transpose(2, 3, 1, 0)
        tree[place[-1]] = value[0] if place[-1] == "negative_slope" else value
    return {"params": params}


def encoder_parameters(weights: Arrays) -> Any:
    """Turns a state dict of the peer's weight encoder into this library's parameters."""
    params: dict[str, Any] = {
        "Dense_0": {"kernel": weights["fc.weight"].T, "bias": weights["fc.bias"]}
    }
    statistics: dict[str, Any] = {}
    convolutions = [key for key, value in weights.items() if value.ndim == 4]
    for layer, key in enumerate(convolutions):
        norm = f"features.{int(key.split('.')[1]) + 1}"
        params[f"Conv_{layer}"] = {"kernel": weights[key].transpose(2, 3, 1, 0)}
        params[f"BatchNorm_{layer}"] = {
            "scale": weights[f"{norm}.weight"],
            "bias": weights[f"{norm}.bias"],
        }
        statistics[f"BatchNorm_{layer}"] = {
            "mean": weights[f"{norm}.running_mean"],
            "var": weights[f"{norm}.running_var"],
        }
    return {"params": params, "batch_stats": statistics}


def _stored(tree: Any, place: tuple[str, ...]) -> np.ndarray:
    for name in place:
        tree = tree[name]
    if place[-1] == "negative_slope":
        return np.asarray(tree)[None]
    return np.asarray(tree).transpose(3, 2, 0, 1) if place[-1] == "kernel" else np.asarray(tree)


@partial(jax.jit, static_argnames="network")
def _apply(params, x, *, network) -> jax.Array:
    signals = jnp.moveaxis(x, 1, -1)
    return jnp.moveaxis(jax.vmap(partial(network.apply, params))(signals), -1, 1)


@partial(jax.jit, static_argnames="network")
def _derivatives(params, x, target, *, network):
    def loss(params, x):
        out = _apply(params, x, network=network)
        return metrics.mse(out, target), out

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)


def _count(network: DIDN) -> int:
    x = jax.ShapeDtypeStruct((8, 8, 2), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    return sum(leaf.size for leaf in jax.tree.leaves(params))
