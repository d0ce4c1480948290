"""Small networks as published files hold them, and where the published files are if at hand."""

import os
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import normal

from jitter_jax.data import Pictures
from jitter_jax.networks import MoDLCNN
from jitter_jax.networks.published import PlainDnCNN
from jitter_jax.operators import block_sampling
from jitter_jax.unroll import ista_net_plus, ista_net_pp

FOLDER = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = Path(os.environ.get("JITTER_JAX_WEIGHTS") or FOLDER / "weights")
DATA = Path(os.environ.get("JITTER_JAX_DATA") or FOLDER / "data")

ISTA_NETS = {
    "pp": (ista_net_pp, dict(num_phases=2, width=3, num_blocks=3)),
    "plus": (ista_net_plus, dict(num_phases=2, width=3, residual=True)),
    "plain": (ista_net_plus, dict(num_phases=2, width=3, residual=False)),
}


def weights(name):
    path = WEIGHTS / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no published weights at {path}")
    return path


def picture(path):
    pytest.importorskip("PIL", reason="pictures are read with pillow")
    if not (DATA / path).exists():
        pytest.skip(f"no real data at {DATA / path}")
    return Pictures(DATA / path)[0]["signal"]


def distinct(params, *, positive=False):
    """Values for parameters, no two alike, so that nothing can be taken for another thing."""
    leaves, structure = jax.tree.flatten(params)
    values = [normal(i, *leaf.shape) for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, [jnp.abs(a) if positive else a for a in values])


def modl():
    """A small CNN of MoDL, its parameters and its file."""
    network = MoDLCNN(depth=3, width=4)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 4, 2)))
    params = distinct(params, positive=True)  # as variances have to be
    arrays = {"Wts/lam1": np.float32(0.05)}
    for layer in range(network.depth):
        name, norm = f"Wts/Layer{layer + 1}", f"BatchNorm_{layer}"
        arrays |= {
            f"{name}/W": params["params"][f"Conv_{layer}"]["kernel"],
            f"{name}/BN/gamma": params["params"][norm]["scale"],
            f"{name}/BN/beta": params["params"][norm]["bias"],
            f"{name}/BN/moving_mean": params["batch_stats"][norm]["mean"],
            f"{name}/BN/moving_variance": params["batch_stats"][norm]["var"],
        }
    return network, params, arrays


def dncnn():
    """A DnCNN of twelve layers, more than there are digits, its parameters and its file."""
    network = PlainDnCNN(depth=12, width=2)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 4, 1)))
    params, arrays = distinct(params, positive=True), {}
    # Not in order: the numbers decide.
    for layer in reversed(range(12)):
        own, name = params["params"][f"Conv_{layer}"], f"layers.{2 * layer}.layer{3 * layer}"
        arrays |= {f"{name}.weight": own["kernel"], f"{name}.bias": own["bias"]}
    return network, params, arrays


class NormedDnCNN(nn.Module):
    """SCICO's network, its norms where they were: three blocks between two convolutions."""

    @nn.compact
    def __call__(self, x):
        convolution = lambda features: nn.Conv(features, (3, 3), padding="CIRCULAR", use_bias=False)
        h = nn.relu(convolution(4)(x))
        for _ in range(3):
            norm = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
            h = nn.relu(norm(convolution(4)(h)))
        return x - convolution(x.shape[-1])(h)


def scico_dncnn(channels=2):
    """SCICO's form of a DnCNN, its parameters and its file."""
    network = NormedDnCNN()
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((4, 4, channels)))
    params = distinct(params, positive=True)
    own, arrays = params["params"], {}
    arrays["params/conv_start/kernel"] = own["Conv_0"]["kernel"]
    arrays["params/conv_end/kernel"] = own["Conv_4"]["kernel"]
    for block in range(3):
        name, norm = f"ConvBNBlock_{block}", f"BatchNorm_{block}"
        arrays[f"params/{name}/Conv_0/kernel"] = own[f"Conv_{block + 1}"]["kernel"]
        rooms = {"params": own[norm], "batch_stats": params["batch_stats"][norm]}
        for room, entries in rooms.items():
            arrays |= {f"{room}/{name}/BatchNorm_0/{key}": a for key, a in entries.items()}
    return network, params, arrays


@cache
def ista_net_params(name):
    make, sizes = ISTA_NETS[name]
    operator = block_sampling(np.ones((1, 4), np.float32), shape=(2, 2))
    params = jax.eval_shape(
        make(**sizes).init, jax.random.key(0), operator, jnp.zeros((1, 1, 1, 1))
    )
    return distinct(params)


def ista_net(name):
    """A small network of `ISTA_NETS`, its parameters and its file, with the axes of torch."""
    params = ista_net_params(name)
    network, arrays = params["network"]["params"], {}
    for phase in range(2):
        for number, layer in enumerate(_layer_names(name)):
            own, key = network[f"Conv_{number}"], f"fcs.{phase}.{layer}"
            kernel = np.asarray(own["kernel"][phase]).transpose(3, 2, 0, 1)
            if name == "pp":
                arrays |= {f"{key}.weight": kernel, f"{key}.bias": own["bias"][phase]}
            else:
                arrays[key] = kernel
        if name != "pp":
            arrays[f"fcs.{phase}.soft_thr"] = network["threshold"][phase][None]
            arrays[f"fcs.{phase}.lambda_step"] = params["step_size"][phase][None]
    for number in range(3) if name == "pp" else ():
        own, key = params["condition"]["params"][f"Dense_{number}"], f"condition.fc{number + 1}"
        arrays |= {f"{key}.weight": np.asarray(own["kernel"]).T, f"{key}.bias": own["bias"]}
    make, sizes = ISTA_NETS[name]
    return make(**sizes), params, arrays


def _layer_names(name):
    if name == "pp":
        blocks = [f"ResidualBlocks.{b}.conv{i}" for b in range(3) for i in (1, 2)]
        return ["head_conv", *blocks, "tail_conv"]
    inner = ["conv1_forward", "conv2_forward", "conv1_backward", "conv2_backward"]
    return inner if name == "plain" else ["conv_D", *inner, "conv_G"]


def refuses_other_files(load, folder, message):
    """Asserts that a loader says what is wrong with a file of something else, and with none."""
    np.savez(folder / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=message):
        load(folder / "other.npz")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load(folder / "nothing.npz")
