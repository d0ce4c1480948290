"""Published ISTA-Net++, ISTA-Net+ and ISTA-Net."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jitter_jax.networks.published._arrays import Shapes, read_arrays, size

Array = jax.Array
Params = Any

_PARALLEL = "module."  # what torch puts before the names of a network on several devices
_CONDITION_WIDTH = 32


def load_ista_net_pp(path: str | Path) -> tuple[dict[str, Any], Params]:
    """Reads a published ISTA-Net++, whose state dict has been saved as arrays.

    The reconstruction is `unroll.ista_net_pp(**sizes).apply(params, operator, y)`, for images in
    [0, 1] and `operators.block_sampling` with blocks of 33 x 33 and orthonormal rows: the published
    weights were trained for 109, 218, 327, 436 and 545 of them. The authors hand the ratio over as
    0.1 to 0.5 exactly, which `ratio=lambda operator: jnp.float32(0.1)` does.

    Args:
        path: `.npz` file with one array for each entry of the state dict under its own name, with
            or without `module.` before it.

    Returns:
        The arguments `num_phases`, `width` and `num_blocks` of `unroll.ista_net_pp`, and the
        parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are not those of such a network.

    Source: You, Xie and Zhang, "ISTA-Net++" (2021), jianzhangcs/ISTA-Netpp.
    """
    values = read_arrays(path, "an ISTA-Net++", _pp_shapes, prefix=_PARALLEL)
    sizes = _pp_sizes({key: value.shape for key, value in values.items()})
    names = _pp_layers(sizes["num_blocks"])
    convolutions = {
        f"Conv_{layer}": {
            "kernel": _kernels(values, f"{name}.weight", sizes["num_phases"]),
            "bias": _stacked(values, f"{name}.bias", sizes["num_phases"]),
        }
        for layer, name in enumerate(names)
    }
    dense = {
        f"Dense_{layer}": {
            "kernel": values[f"condition.fc{layer + 1}.weight"].T,
            "bias": values[f"condition.fc{layer + 1}.bias"],
        }
        for layer in range(3)
    }
    return sizes, {"network": {"params": convolutions}, "condition": {"params": dense}}


def load_ista_net_plus(path: str | Path) -> tuple[dict[str, Any], Params]:
    """Reads a published ISTA-Net+ or ISTA-Net, whose state dict has been saved as arrays.

    The reconstruction is `unroll.ista_net_plus(**sizes).apply(params, operator, y)`, for images in
    [0, 1] and the operator that the network was trained for: `operators.block_sampling` with the
    authors' own matrix, and their matrix of initial estimates as `start_matrix`; or
    `unroll.real_signals(cartesian_mri(mask))` with their mask, centred.

    Args:
        path: `.npz` file with one array for each entry of the state dict under its own name, with
            or without `module.` before it.

    Returns:
        The arguments `num_phases`, `width` and `residual` of `unroll.ista_net_plus`, and the
        parameters.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or its arrays are not those of such a network.

    Source: Zhang and Ghanem, "ISTA-Net" (2018), jianzhangcs/ISTA-Net-PyTorch.
    """
    values = read_arrays(path, "an ISTA-Net+ or an ISTA-Net", _plus_shapes, prefix=_PARALLEL)
    sizes = _plus_sizes({key: value.shape for key, value in values.items()})
    num_phases = sizes["num_phases"]
    weights: dict[str, Any] = {
        f"Conv_{layer}": {"kernel": _kernels(values, name, num_phases)}
        for layer, name in enumerate(_plus_layers(sizes["residual"]))
    }
    weights["threshold"] = _stacked(values, "soft_thr", num_phases)[:, 0]
    step_size = _stacked(values, "lambda_step", num_phases)[:, 0]
    return sizes, {"network": {"params": weights}, "step_size": step_size}


def _stacked(values: dict[str, Array], name: str, num_phases: int) -> Array:
    return jnp.stack([values[f"fcs.{phase}.{name}"] for phase in range(num_phases)])


def _kernels(values: dict[str, Array], name: str, num_phases: int) -> Array:
    """Stacks kernels; torch has them as (outputs, inputs, rows, columns)."""
    return _stacked(values, name, num_phases).transpose(0, 3, 4, 2, 1)


def _pp_layers(num_blocks: int) -> list[str]:
    """Returns the convolutions of a phase, in the order of their use."""
    inner = [
        f"ResidualBlocks.{block}.conv{layer}" for block in range(num_blocks) for layer in (1, 2)
    ]
    return ["head_conv", *inner, "tail_conv"]


def _pp_sizes(found: Shapes) -> dict[str, int]:
    # A network has a phase and a block at least; a file without any lacks these.
    phases = sum(key.endswith(".head_conv.weight") for key in found)
    blocks = sum(
        key.startswith("fcs.0.ResidualBlocks.") and key.endswith(".conv1.weight") for key in found
    )
    width = size(found, "fcs.0.head_conv.weight", 0, num_axes=4, default=32)
    return {"num_phases": max(phases, 1), "width": width, "num_blocks": max(blocks, 1)}


def _pp_shapes(found: Shapes) -> Shapes:
    sizes = _pp_sizes(found)
    width, names = sizes["width"], _pp_layers(sizes["num_blocks"])
    channels = size(found, "fcs.0.tail_conv.weight", 0, num_axes=4, default=1)
    shapes: Shapes = {}
    for phase in range(sizes["num_phases"]):
        for name in names:
            inputs = channels + 1 if name == names[0] else width
            outputs = channels if name == names[-1] else width
            shapes[f"fcs.{phase}.{name}.weight"] = (outputs, inputs, 3, 3)
            shapes[f"fcs.{phase}.{name}.bias"] = (outputs,)
    units = (1, _CONDITION_WIDTH, _CONDITION_WIDTH, 2 * sizes["num_phases"])
    for layer in (1, 2, 3):
        shapes[f"condition.fc{layer}.weight"] = (units[layer], units[layer - 1])
        shapes[f"condition.fc{layer}.bias"] = (units[layer],)
    return shapes


def _plus_layers(residual: bool) -> list[str]:
    inner = ["conv1_forward", "conv2_forward", "conv1_backward", "conv2_backward"]
    return ["conv_D", *inner, "conv_G"] if residual else inner


def _plus_sizes(found: Shapes) -> dict[str, Any]:
    phases = sum(key.endswith(".conv1_forward") for key in found)
    width = size(found, "fcs.0.conv1_forward", 0, num_axes=4, default=32)
    residual = any(key.endswith((".conv_D", ".conv_G")) for key in found)
    return {"num_phases": max(phases, 1), "width": width, "residual": residual}


def _plus_shapes(found: Shapes) -> Shapes:
    sizes = _plus_sizes(found)
    width, names = sizes["width"], _plus_layers(sizes["residual"])
    channels = size(found, f"fcs.0.{names[0]}", 1, num_axes=4, default=1)
    shapes: Shapes = {}
    for phase in range(sizes["num_phases"]):
        for name in ("lambda_step", "soft_thr"):
            shapes[f"fcs.{phase}.{name}"] = (1,)
        for name in names:
            inputs = channels if name == names[0] else width
            outputs = channels if name == names[-1] else width
            shapes[f"fcs.{phase}.{name}"] = (outputs, inputs, 3, 3)
    return shapes
