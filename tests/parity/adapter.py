"""Runs this library in its `repo` readings on the inputs of a golden file.

A golden file holds inputs, weights, settings and recorded noises of one of the authors' own PyTorch
modules, and the outputs that module gave. `reproduce` computes every output again from the inputs.

What runs under `jit` are module-level functions, so that files and tests share what is compiled.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax import attacks, metrics, networks, operators, unroll
from jitter_jax.data import add_layer_repo
from jitter_jax.data.measure import Measured, normalise
from jitter_jax.unroll.iterate import data_gradient

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


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -3, -1)


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
        kernel = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
        network[f"Conv_{i}"] = {"kernel": kernel, "bias": weights[f"{name}.bias"]}
    for i, layer in enumerate(_NORMS):
        name = f"{prefix}R.data_layer.{layer}"
        scale, bias = (weights[f"{name}.{part}"] for part in ("weight", "bias"))
        network[f"GroupNorm_{i}"] = {"scale": scale, "bias": bias}
    return {"network": {"params": network}, "step_size": weights[f"{prefix}eta"][0]}


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


def _published(method: Callable, num_iterations: int) -> unroll.Reconstructor:
    """The published seismic reconstruction."""
    return unroll.unrolled(
        method,
        _NETWORK,
        _STEP_SIZE,
        num_iterations=num_iterations,
        start="measurement",
        sees_measurement=True,
    )


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
    raw = _channels_last(arrays.get("X_raw", arrays["X"]))
    of_raw, matrix, outputs = _operator_outputs(params, operator, signal, y, raw)
    out: Arrays = {"A": matrix} | {key: _channels_first(value) for key, value in outputs.items()}
    if "X_raw" in arrays:
        level = arrays["cfg/noise_level"].item()
        y_raw = np.asarray(of_raw) + level * _channels_last(arrays["meas_z"])
        measured = _normalise(raw, y_raw)
        out["y_raw"], out["maxval"] = _channels_first(y_raw), measured.scale
        out["y"], out["X"] = _channels_first(measured.measurement), _channels_first(measured.signal)
    noise = np.moveaxis(_channels_last(arrays["jitter_z"]), 0, 1)
    for method in _METHODS:
        for num_iterations in arrays["cfg/K"].tolist():
            run = f"{method}{num_iterations}"
            settings = dict(method=method, num_iterations=num_iterations, sigma=sigma)
            results = _seismic_run(params, operator, signal, y, noise[:, :num_iterations], settings)
            out |= {f"{run}/{key}": value for key, value in results.items()}
    return out


@jax.jit
def _operator_outputs(params, operator, signal, y, raw) -> tuple[jax.Array, jax.Array, dict]:
    forward, adjoint = jax.vmap(operator.forward), jax.vmap(operator.adjoint)
    seen = jnp.concatenate([y, signal], -1)
    return (
        forward(raw),
        operators.convolution_matrix(operator.leaves, signal.shape[1]),
        {
            "forward_X": forward(signal),
            "adjoint_y": adjoint(y),
            "gramian_X": adjoint(forward(signal)),
            "R_of_y_X": jax.vmap(partial(_NETWORK.apply, params["network"]))(seen),
        },
    )


def _seismic_run(params, operator, signal, y, noise, settings) -> Arrays:
    # No noise is the recorded noise 0: one function to compile for both runs.
    (value, (trajectory, *_)), (grad, grad_start, grad_y) = _seismic_gradient(
        params, y, y, np.zeros_like(noise), operator, signal, **settings
    )
    out = {
        "out": _channels_first(trajectory[:, -1]),
        "loss": value,
        "grad_x0": _channels_first(grad_start),
        "grad_y": _channels_first(grad_y),
    }
    out |= {f"grad/{key}": g for key, g in _state_dict(grad).items()}

    (value, (trajectory, largest, scaled)), (grad, _, _) = _seismic_gradient(
        params, y, y, noise, operator, signal, **settings
    )
    out |= {"jitter_out": _channels_first(trajectory[:, -1]), "jitter_loss": value}
    out |= {f"jitter_grad/{key}": g for key, g in _state_dict(grad).items()}
    scaled = _channels_first(scaled)
    return out | {
        "jitter_max": largest,
        "jitter_scaled": scaled,
        "jitter_scaled_first": scaled[0],
    }


@partial(jax.jit, static_argnames=("method", "num_iterations", "sigma"))
def _seismic_gradient(params, start, y, noise, operator, signal, *, method, num_iterations, sigma):
    """The loss, the iterates, what the jitter adds, and the derivatives of the loss.

    The start and the measurement are one array to the published network, but separate arguments of
    its derivative; `noise` is `(batch, K, ...)`.
    """

    def loss(params, start, y):
        def one(x_0, y, noise):
            def from_start(*args, start, **options):
                del start
                if method == "prox":
                    options["noise_step_size"] = jnp.exp(params["step_size"])
                return _METHODS[method](*args, start=x_0, **options)

            draw = unroll.jitter.repo(sigma, recorded=noise)
            # The draws are recorded; the key only says that there is jitter.
            key = jax.random.key(0)
            trajectory = _published(from_start, num_iterations).apply(
                params, operator, y, key=key, jitter=draw, return_trajectory=True
            )
            gradients = jax.vmap(lambda x: data_gradient(operator, x, y))(trajectory[:-1])
            stepped = trajectory[:-1] - _STEP_SIZE.value(params["step_size"]) * gradients
            added = jax.vmap(lambda x, k: draw(key, x, k, num_iterations))(
                stepped, jnp.arange(num_iterations)
            )
            return trajectory, stepped, added

        trajectory, stepped, added = jax.vmap(one, axis_name="batch")(start, y, noise)
        largest = jnp.max(stepped, axis=(0, 2, 3, 4))
        error = metrics.mse(trajectory[:, -1], signal)
        return error, (trajectory, largest, jnp.swapaxes(added, 0, 1))

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(params, start, y)


# The attack: sgdj_pgd


def _pgd(arrays: Arrays) -> Arrays:
    operator = operators.dense(arrays["seis/A"])
    params = _params(arrays, "seis/w/")
    num_iterations = int(arrays["seis/cfg/K"])
    signal, y = _channels_last(arrays["seis/X"]), _channels_last(arrays["seis/y"])
    problem = (params, operator, signal, y)
    zero = np.zeros_like(y)
    first = _pgd_gradient(*problem, zero, num_iterations=num_iterations)
    # The peer differentiates the mean over the batch, ours are per signal.
    out: Arrays = {"seis/grad_first": _channels_first(first) / len(y)}
    for name, norm in (("l2", "l2"), ("inf", "linf")):
        prefix = f"seis/{name}"
        epsilon, alpha = (arrays[f"{prefix}/{key}"].item() for key in ("epsilon", "alpha"))
        threat = attacks.Threat(epsilon, norm=norm)
        # The number of steps is recorded only as the length of the outputs.
        num_steps = len(arrays.get(f"{prefix}/delta", range(5)))
        delta, deltas, losses = zero, [], []
        for _ in range(num_steps):
            delta, before, after = _pgd_step(
                *problem, delta, threat, num_iterations=num_iterations, step_size=alpha / epsilon
            )
            deltas.append(_channels_first(delta))
            losses.append(before)
        losses.append(after)
        out[f"{prefix}/delta"] = np.stack(deltas)
        out[f"{prefix}/loss_at_delta"] = np.stack(losses)
        out[f"{prefix}/loss_list"] = np.array(losses[:-1] if norm == "l2" else [])
    return out


def _pgd_objective(params, operator, x, y, num_iterations: int) -> attacks.Objective:
    reconstructor = _published(unroll.gradient_descent, num_iterations)
    reconstruct = partial(reconstructor.apply, params, operator)
    return attacks.reconstruction_error(reconstruct, operator, x, y)


@partial(jax.jit, static_argnames="num_iterations")
def _pgd_gradient(params, operator, signal, y, delta, *, num_iterations):
    def one(x, y, delta):
        return jax.grad(_pgd_objective(params, operator, x, y, num_iterations))(delta)

    return jax.vmap(one)(signal, y, delta)


@partial(jax.jit, static_argnames=("num_iterations", "step_size"))
def _pgd_step(params, operator, signal, y, delta, threat, *, num_iterations, step_size):
    """One step of the public code's attack: no random start, no restarts, the last iterate."""

    def one(x, y, delta):
        attack = attacks.pgd(
            threat.ball(y), num_steps=1, step_size=step_size, random_start=False, keep_best=False
        )
        objective = _pgd_objective(params, operator, x, y, num_iterations)
        delta, info = attack(objective, delta, jax.random.key(0))
        return delta, info.history[0, 0], info.history[0, 1]

    delta, before, after = jax.vmap(one)(signal, y, delta)
    return delta, jnp.mean(before), jnp.mean(after)


# Metrics, normalisation and added details: sgdj_metrics


def _metrics(arrays: Arrays) -> Arrays:
    out: Arrays = {}
    for case in ("m1chan", "m1chan_signed", "m2chan"):
        truth, estimate, start = (arrays[f"{case}/{key}"][:, :1] for key in ("X", "Xk", "X0"))
        estimate, start = (np.clip(a, 0, 1) for a in (estimate, start))
        truth = np.clip(truth, 0, 1) if case == "m2chan" else truth
        truth, estimate, start = (_channels_last(a) for a in (truth, estimate, start))
        initial, final, similarity = _image_metrics(start, estimate, truth)
        out |= {
            f"{case}/init_psnr_each": initial,
            f"{case}/recon_psnr_each": final,
            f"{case}/ssim_each": similarity,
            f"{case}/init_psnr": np.mean(initial),
            f"{case}/recon_psnr": np.mean(final),
            f"{case}/delta_psnr": np.mean(final - initial),
            f"{case}/ssim": np.mean(similarity),
        }
    return out | _normalisations(arrays) | _details(arrays)


@jax.jit
def _image_metrics(start, estimate, truth) -> tuple[jax.Array, jax.Array, jax.Array]:
    psnr = jax.vmap(metrics.psnr)
    ssim = jax.vmap(partial(metrics.ssim, border="reflect"))
    return psnr(start, truth), psnr(estimate, truth), ssim(estimate, truth)


@jax.jit
@jax.vmap
def _normalise(signal: jax.Array, measurement: jax.Array) -> Measured:
    return normalise(signal, measurement, "measurement")


def _normalisations(arrays: Arrays) -> Arrays:
    y, signal, zero_y = (arrays[f"norm/{key}"] for key in ("y", "X", "zero_y"))
    plain, guarded = _normalise(signal, y), _normalise(signal, zero_y)
    # The peer guards against an all-zero sample only where no truth is given.
    peak = np.abs(zero_y).max(axis=(1, 2, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        unguarded_y, unguarded_signal = (a / peak[:, None, None, None] for a in (zero_y, signal))
    minmax = arrays["norm/minmax_in"]
    low, high = minmax.min(axis=(1, 2), keepdims=True), minmax.max(axis=(1, 2), keepdims=True)
    return {
        "norm/maxval": plain.scale,
        "norm/y_out": plain.measurement,
        "norm/X_out": plain.signal,
        "norm/zero_maxval": guarded.scale,
        "norm/zero_y_out": guarded.measurement,
        "norm/zero_with_X_maxval": peak,
        "norm/zero_with_X_y_out": unguarded_y,
        "norm/zero_with_X_X_out": unguarded_signal,
        "norm/minmax_out": (minmax - low) / (high - low),
    }


def _details(arrays: Arrays) -> Arrays:
    out = {}
    for case in ("seis", "seis_clipped"):
        sections = np.moveaxis(arrays[f"detail/{case}/X"], 1, -1)
        layered = np.stack([add_layer_repo(section) for section in sections])
        out[f"detail/{case}/out"] = np.moveaxis(layered, -1, 1)
    return out


_CASES: dict[str, Callable[[Arrays], Arrays]] = {
    "sgdj_seis": _seismic,
    "sgdj_seis_352": _seismic,
    "sgdj_pgd": _pgd,
    "sgdj_metrics": _metrics,
}
