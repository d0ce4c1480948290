"""Runs this library in its `repo` readings on the inputs of a golden file.

A golden file holds inputs, weights, settings and recorded noises of one of the authors' own PyTorch
modules, and the outputs that module gave. `reproduce` computes every output again from the inputs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax import attacks, metrics, networks, operators, unroll
from jitter_jax.data import add_layer_repo

Arrays = dict[str, np.ndarray]


def reproduce(case: str, arrays: Arrays) -> Arrays:
    """Returns every output of the golden file `case`, by its golden key.

    Each output is computed in float32 under its own key and in float64 under `f64/<key>`. Only
    inputs, weights, settings and recorded noises are read from `arrays`.

    Args:
      case: name of the golden file, without suffix.
      arrays: what the file holds.

    Raises:
      KeyError: no such case, or an input is missing.
    """
    if case not in _CASES:
        raise KeyError(f"case must be one of {sorted(_CASES)}, got {case!r}")
    outputs = {}
    for prefix, dtype in (("", np.float32), ("f64/", np.float64)):
        with jax.enable_x64(dtype == np.float64):
            inputs = {
                key: value.astype(dtype) if value.dtype.kind == "f" else value
                for key, value in arrays.items()
            }
            for key, value in _CASES[case](inputs).items():
                outputs[prefix + key] = np.asarray(value)
    return outputs


def _channels_last(x: np.ndarray) -> jax.Array:
    return jnp.moveaxis(jnp.asarray(x), -3, -1)


def _channels_first(x: jax.Array) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, -3)


# The network and its weights


_LAYERS = (0, 3, 6, 9, 10)
_NORMS = (1, 4, 7)


def _params(weights: Arrays, prefix: str) -> Any:
    """Turns a torch state dict of the seismic network into this library's parameters."""
    network = {}
    for i, layer in enumerate(_LAYERS):
        name = f"{prefix}R.data_layer.{layer}"
        kernel = jnp.asarray(weights[f"{name}.weight"]).transpose(2, 3, 1, 0)
        network[f"Conv_{i}"] = {"kernel": kernel, "bias": jnp.asarray(weights[f"{name}.bias"])}
    for i, layer in enumerate(_NORMS):
        name = f"{prefix}R.data_layer.{layer}"
        scale, bias = (jnp.asarray(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        network[f"GroupNorm_{i}"] = {"scale": scale, "bias": bias}
    eta = jnp.asarray(weights[f"{prefix}eta"])[0]
    return {"network": {"params": network}, "step_size": eta}


def _state_dict(params: Any) -> Arrays:
    """Inverts `_params`; also for gradients, which have the form of the parameters."""
    network = params["network"]["params"]
    out = {"eta": np.asarray(params["step_size"])[None]}
    for i, layer in enumerate(_LAYERS):
        conv = network[f"Conv_{i}"]
        kernel = np.asarray(conv["kernel"]).transpose(3, 2, 0, 1)
        out[f"R.data_layer.{layer}.weight"] = kernel
        out[f"R.data_layer.{layer}.bias"] = np.asarray(conv["bias"])
    for i, layer in enumerate(_NORMS):
        norm = network[f"GroupNorm_{i}"]
        out[f"R.data_layer.{layer}.weight"] = np.asarray(norm["scale"])
        out[f"R.data_layer.{layer}.bias"] = np.asarray(norm["bias"])
    return out


_NETWORK = networks.SeismicCNN()
_METHODS = {"gd": unroll.gradient_descent, "prox": unroll.proximal_gradient}
_STEP_SIZE = unroll.step_size.sigmoid(scale=0.1)


def _reconstruct(method, params, operator, start, y, num_iterations, **options):
    """The published seismic network with its start and its measurement as separate arguments."""

    def learned_step(x):
        return _NETWORK.apply(params["network"], jnp.concatenate([y, x], -1))

    return _METHODS[method](
        learned_step,
        operator,
        y,
        step_size=_STEP_SIZE.value(params["step_size"]),
        start=start,
        num_iterations=num_iterations,
        **options,
    )


def _recorded(method: str, params: Any, sigma: float, noise: jax.Array) -> unroll.Jitter:
    """The jitter `repo`, with recorded normals `(K, ...)` of one signal instead of a key's.

    The published proximal network multiplies its noise by `e^eta` where its data step has
    `0.1 sigmoid(eta)`.
    """
    eta = params["step_size"]
    factor = jnp.exp(eta) / _STEP_SIZE.value(eta) if method == "prox" else 1.0

    def jitter(key, iterate, k, num_iterations):
        del key, num_iterations
        largest = jnp.max(jax.lax.all_gather(jnp.max(iterate), "batch"))
        return factor * sigma * largest * noise[k]

    return jitter


def _batched(method, params, operator, start, y, num_iterations, noise=None, sigma=0.0, **options):
    """Lifts `_reconstruct` to a batch; `noise` is `(K, batch, ...)`."""

    def one(start, y, noise):
        jittered = {}
        if noise is not None:
            jittered = {
                "key": jax.random.key(0),
                "jitter": _recorded(method, params, sigma, noise),
            }
        return _reconstruct(
            method, params, operator, start, y, num_iterations, **jittered, **options
        )

    axes = (0, 0, None if noise is None else 1)
    return jax.vmap(one, in_axes=axes, axis_name="batch")(start, y, noise)


# Seismic reconstructions: sgdj_seis, sgdj_seis_352


def _seismic(arrays: Arrays) -> Arrays:
    ricker_points, ricker_width = (int(v) for v in arrays["cfg/ricker"])
    sigma = arrays["cfg/sigma_wk"].item()
    dtype = arrays["y"].dtype
    wavelet = operators.ricker(ricker_points, ricker_width)
    if dtype == np.float64:
        # The peer's matrix is float32 and its float64 replay casts it.
        wavelet = wavelet.astype(np.float64)
    operator = operators.convolution(wavelet)
    params = _params(arrays, "w/")
    signal, y = _channels_last(arrays["X"]), _channels_last(arrays["y"])
    forward, adjoint = jax.vmap(operator.forward), jax.vmap(operator.adjoint)
    out: Arrays = {
        "A": operators.convolution_matrix(operator.leaves, signal.shape[1]),
        "forward_X": _channels_first(forward(signal)),
        "adjoint_y": _channels_first(adjoint(y)),
        "gramian_X": _channels_first(adjoint(forward(signal))),
        "R_of_y_X": _channels_first(
            jax.vmap(lambda y, x: _NETWORK.apply(params["network"], jnp.concatenate([y, x], -1)))(
                y, signal
            )
        ),
    }
    if "X_raw" in arrays:
        raw = _channels_last(arrays["X_raw"])
        level = arrays["cfg/noise_level"].item()
        y_raw = _channels_first(forward(raw)) + level * arrays["meas_z"]
        out["y_raw"] = y_raw
        peak = _peak(y_raw)
        out["maxval"] = peak
        out["y"], out["X"] = (_divide(a, peak) for a in (y_raw, arrays["X_raw"]))
    noise = _channels_last(arrays["jitter_z"])
    for method in _METHODS:
        for num_iterations in arrays["cfg/K"].tolist():
            run = f"{method}{num_iterations}"
            results = _seismic_run(
                method, params, operator, signal, y, num_iterations, noise, sigma
            )
            out |= {f"{run}/{key}": value for key, value in results.items()}
    return out


def _seismic_run(method, params, operator, signal, y, num_iterations, noise, sigma) -> Arrays:
    noise = noise[:num_iterations]

    def loss(params, start, y, noise):
        estimate = _batched(method, params, operator, start, y, num_iterations, noise, sigma)
        return jnp.mean((estimate - signal) ** 2), estimate

    derivative = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))
    (value, estimate), (grad, grad_start, grad_y) = derivative(params, y, y, None)
    out = {
        "out": _channels_first(estimate),
        "loss": value,
        "grad_x0": _channels_first(grad_start),
        "grad_y": _channels_first(grad_y),
    }
    out |= {f"grad/{key}": g for key, g in _state_dict(grad).items()}

    (value, estimate), (grad, _, _) = derivative(params, y, y, noise)
    out |= {"jitter_out": _channels_first(estimate), "jitter_loss": value}
    out |= {f"jitter_grad/{key}": g for key, g in _state_dict(grad).items()}
    iterates = _batched(
        method, params, operator, y, y, num_iterations, noise, sigma, return_trajectory=True
    )
    step_size = _STEP_SIZE.value(params["step_size"])

    def data_step(x, y):
        return x - step_size * operator.adjoint(operator.forward(x) - y)

    stepped = jax.vmap(jax.vmap(data_step, in_axes=(0, None)))(iterates[:, :-1], y)
    largest = jnp.max(stepped, axis=(0, 2, 3, 4))
    scaled = _channels_first(largest[:, None, None, None, None] * sigma * noise)
    return out | {
        "jitter_max": largest,
        "jitter_scaled": scaled,
        "jitter_scaled_first": scaled[0],
    }


# The attack: sgdj_pgd


def _pgd(arrays: Arrays) -> Arrays:
    matrix = jnp.asarray(arrays["seis/A"])
    operator = operators.dense(matrix)
    params = _params(arrays, "seis/w/")
    num_iterations = int(arrays["seis/cfg/K"])
    signal, y = _channels_last(arrays["seis/X"]), _channels_last(arrays["seis/y"])

    def objective_of(x, y) -> attacks.Objective:
        def reconstruct(y):
            return _reconstruct("gd", params, operator, y, y, num_iterations)

        return attacks.reconstruction_error(reconstruct, operator, x, y)

    zero = jnp.zeros_like(y)
    first = jax.vmap(lambda x, y, delta: jax.grad(objective_of(x, y))(delta))(signal, y, zero)
    # The peer differentiates the mean over the batch, ours are per signal.
    out: Arrays = {"seis/grad_first": _channels_first(first) / len(y)}
    for name, norm in (("l2", "l2"), ("inf", "linf")):
        prefix = f"seis/{name}"
        epsilon, alpha = (arrays[f"{prefix}/{key}"].item() for key in ("epsilon", "alpha"))
        step = _published_step(objective_of, attacks.Threat(epsilon, norm=norm), alpha / epsilon)
        # The number of steps is recorded only as the length of the outputs.
        num_steps = len(arrays.get(f"{prefix}/delta", range(5)))
        delta, deltas, losses = zero, [], []
        for _ in range(num_steps):
            delta, before, after = step(signal, y, delta)
            deltas.append(_channels_first(delta))
            losses.append(before)
        losses.append(after)
        out[f"{prefix}/delta"] = np.stack(deltas)
        out[f"{prefix}/loss_at_delta"] = np.stack(losses)
        out[f"{prefix}/loss_list"] = np.array(losses[:-1] if norm == "l2" else [])
    return out


def _published_step(objective_of: Callable, threat: attacks.Threat, step_size: float) -> Callable:
    """One step of the public code's attack: no random start, no restarts, the last iterate."""

    def one(x, y, delta):
        attack = attacks.pgd(
            threat.ball(y), num_steps=1, step_size=step_size, random_start=False, keep_best=False
        )
        delta, info = attack(objective_of(x, y), delta, jax.random.key(0))
        return delta, info.history[0, 0], info.history[0, 1]

    def step(signal, y, delta):
        delta, before, after = jax.vmap(one)(signal, y, delta)
        return delta, jnp.mean(before), jnp.mean(after)

    return jax.jit(step)


# Metrics, normalisation and added details: sgdj_metrics


def _metrics(arrays: Arrays) -> Arrays:
    out: Arrays = {}
    for case in ("m1chan", "m1chan_signed", "m2chan"):
        truth, estimate, start = (arrays[f"{case}/{key}"][:, :1] for key in ("X", "Xk", "X0"))
        estimate, start = (np.clip(a, 0, 1) for a in (estimate, start))
        truth = np.clip(truth, 0, 1) if case == "m2chan" else truth
        truth, estimate, start = (_channels_last(a) for a in (truth, estimate, start))
        psnr = jax.vmap(metrics.psnr)
        ssim = jax.vmap(partial(metrics.ssim, border="reflect"))
        initial, final, similarity = (
            psnr(start, truth),
            psnr(estimate, truth),
            ssim(estimate, truth),
        )
        out |= {
            f"{case}/init_psnr_each": initial,
            f"{case}/recon_psnr_each": final,
            f"{case}/ssim_each": similarity,
            f"{case}/init_psnr": jnp.mean(initial),
            f"{case}/recon_psnr": jnp.mean(final),
            f"{case}/delta_psnr": jnp.mean(final - initial),
            f"{case}/ssim": jnp.mean(similarity),
        }
    return out | _normalisations(arrays) | _details(arrays)


def _normalisations(arrays: Arrays) -> Arrays:
    y, signal, zero_y = (arrays[f"norm/{key}"] for key in ("y", "X", "zero_y"))
    peak, zero_peak = _peak(y), _peak(zero_y)
    # The peer guards against an all-zero sample only where no truth is given.
    guarded = np.where(zero_peak == 0, 1, zero_peak)
    minmax = arrays["norm/minmax_in"]
    low, high = minmax.min(axis=(1, 2), keepdims=True), minmax.max(axis=(1, 2), keepdims=True)
    return {
        "norm/maxval": peak,
        "norm/y_out": _divide(y, peak),
        "norm/X_out": _divide(signal, peak),
        "norm/zero_maxval": guarded,
        "norm/zero_y_out": _divide(zero_y, guarded),
        "norm/zero_with_X_maxval": zero_peak,
        "norm/zero_with_X_y_out": _divide(zero_y, zero_peak),
        "norm/zero_with_X_X_out": _divide(signal, zero_peak),
        "norm/minmax_out": (minmax - low) / (high - low),
    }


def _details(arrays: Arrays) -> Arrays:
    out = {}
    for case in ("seis", "seis_clipped"):
        sections = np.moveaxis(arrays[f"detail/{case}/X"], 1, -1)
        layered = np.stack([add_layer_repo(section) for section in sections])
        out[f"detail/{case}/out"] = np.moveaxis(layered, -1, 1)
    return out


def _peak(y: np.ndarray) -> np.ndarray:
    return np.abs(y).reshape(len(y), -1).max(axis=1)


def _divide(a: np.ndarray, peak: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return a / peak[:, None, None, None]


_CASES: dict[str, Callable[[Arrays], Arrays]] = {
    "sgdj_seis": _seismic,
    "sgdj_seis_352": _seismic,
    "sgdj_pgd": _pgd,
    "sgdj_metrics": _metrics,
}
