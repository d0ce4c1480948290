"""The authors' weights as parameters of this library, and gradients of these back again."""

from collections import Counter
from typing import Any

import numpy as np

# Of NumPy or of JAX, by their golden keys.
Arrays = dict[str, Any]


def layers(weights: Arrays, prefix: str) -> dict[str, str]:
    """Returns the network's layers in their order: the torch name, and this library's."""
    found = {
        key.removeprefix(prefix).rpartition(".")[0]
        for key in weights
        if key.startswith(f"{prefix}R.")
    }
    names: dict[str, str] = {}
    counts = Counter[str]()
    for layer in sorted(found, key=lambda name: int(name.rpartition(".")[2])):
        kind = "Conv" if weights[f"{prefix}{layer}.weight"].ndim == 4 else "GroupNorm"
        names[layer] = f"{kind}_{counts[kind]}"
        counts[kind] += 1
    return names


def parameters(weights: Arrays, prefix: str) -> Any:
    """Turns the torch state dict under a prefix into this library's parameters."""
    network = {}
    for layer, name in layers(weights, prefix).items():
        weight, bias = weights[f"{prefix}{layer}.weight"], weights.get(f"{prefix}{layer}.bias")
        own = {"scale": weight} if weight.ndim == 1 else {"kernel": weight.transpose(2, 3, 1, 0)}
        network[name] = own if bias is None else own | {"bias": bias}
    return {"network": {"params": network}, "step_size": weights[f"{prefix}eta"][0]}


def state_dict(params: Any, names: dict[str, str]) -> Arrays:
    """Inverts `parameters`; also for gradients, which have the form of the parameters."""
    out = {"eta": np.asarray(params["step_size"])[None]}
    for layer, name in names.items():
        own = {key: np.asarray(value) for key, value in params["network"]["params"][name].items()}
        kernel = own.get("kernel")
        out[f"{layer}.weight"] = own["scale"] if kernel is None else kernel.transpose(3, 2, 0, 1)
        if "bias" in own:
            out[f"{layer}.bias"] = own["bias"]
    return out
