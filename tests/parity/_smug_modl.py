"""SMUG: its reconstructions, training losses and attacks in `smug_modl`, and its metrics.

What runs under `jit` are module-level functions of a batch in the layout of the golden files.
"""

import dataclasses
from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _didn import didn_parameters, encoder_parameters
from _runs import pack_signal
from _weights import Arrays

from jitter_jax import attacks, metrics, operators, schemes, solvers, unroll
from jitter_jax.attacks.search import value_and_ascent
from jitter_jax.attacks.threat import Norm
from jitter_jax.data.batch import Batch
from jitter_jax.networks import DIDN, WeightEncoder
from jitter_jax.smoothing import Smoothing

Array = jax.Array

# The peer's errors are means over the two real channels, ours over complex pixels.
_PARTS = 2
# Noisy copies are cut to this, before the denoiser.
_CLAMP = 1.0
# By the name of the training run: none, by the stored statistics, and by those of all noisy copies.
ENCODERS = {
    "smug": None,
    "wsmug_bn_eval": WeightEncoder(),
    "wsmug_bn_train": WeightEncoder(statistics="signal", axis_name=("batch", "samples")),
}
# Steps of the attack on a smoothed reconstruction.
_SMUG_STEPS = 3


class Setup(NamedTuple):
    """The settings of all reconstructions of the file.

    Attributes:
        regularisation: `lambda`.
        cg_iterations: the peer's limit, which ours always runs to: it has no tolerance.
    """

    regularisation: float
    cg_iterations: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded(Smoothing):
    """Noise that is known: in place of a draw, what was recorded for its key.

    Attributes:
        keys: `(n,)`, the keys that will be asked for.
        noise: `(n, ...)`, what each of them gives.
    """

    keys: Array
    noise: Array

    def perturb(self, key: Array, x: Array, support: Array | None = None) -> Array:
        """Returns `x` with the noise of that key, or not-a-number for a key without one."""
        found = jnp.all(jax.random.key_data(self.keys) == jax.random.key_data(key)[None], -1)
        noise = jnp.where(jnp.any(found), self.noise[jnp.argmax(found)], jnp.nan)
        return super().perturb(key, x + noise, support)


def recorded(noise: Array, clamp: float | None = _CLAMP) -> Recorded:
    """Returns the recorded noise of a batch that is lifted with the key 0.

    Args:
        noise: `(batch, iterations, samples, *signal)`; what is not unrolled has no iterations.
        clamp: see `Smoothing`.
    """
    counts, signal = noise.shape[:-3], noise.shape[-3:]
    table = jax.random.key(0)[None]
    for count in counts:
        # The library folds the numbers of example, iteration and sample into a key, in this order.
        fold = jax.vmap(jax.random.fold_in, (None, 0))
        table = jax.vmap(fold, (0, None))(table, jnp.arange(count)).ravel()
    rows = noise.reshape(-1, *signal)
    return Recorded(0.0, counts[-1], clamp=clamp, keys=table, noise=rows)


def smug_modl(arrays: Arrays) -> Arrays:
    """Returns the outputs of the file that the library has a counterpart for.

    It has none for the running statistics of batch normalisation, nor for where conjugate gradients
    stop by an absolute tolerance.
    """
    setup = Setup(arrays["cfg/lam"].item(), arrays["cfg/cg_max_iter"].item())
    # Under jit a plain dict would lose the order, from which the layers get their names.
    weights = OrderedDict(
        (key, value)
        for key, value in arrays.items()
        if key.startswith(("w/", "we/")) and value.dtype.kind == "f"
    )
    data = {key: arrays[key] for key in ("smap", "mask", "kspace_masked", "target")}
    # Row s B + b is sample s of image b.
    unrolled, samples = arrays["cfg/K_long"].item(), arrays["cfg/num_sample"].item()
    noise = arrays["noise"].reshape(unrolled, samples, -1, *arrays["image"].shape[1:])
    noise = np.moveaxis(noise, 2, 0)

    cg = _data_step(data, arrays["cg/dn"], arrays["cg/cotangent"], setup=setup)
    scaled = arrays["cfg/smoothing_epsilon"].item() * arrays["pretrain/z"]
    return {
        **_operators(data, arrays["image"]),
        **{f"cg/{key}": value for key, value in cg.items()},
        **_reconstructions(weights, data, noise, arrays, setup),
        **_losses(weights, data, noise, arrays, setup),
        "pretrain/loss": _pretrain(weights, _first(data), scaled[:, None], setup=setup),
        **_clamps(arrays),
        **_attacks(weights, data, arrays, setup),
    }


def smug_metrics(arrays: Arrays) -> Arrays:
    """Returns the metrics of the file of SMUG's masks and metrics, where it holds the images.

    The library has no HFEN, and none of the SSIM with a window that is off centre.
    """
    if "target" not in arrays:
        return {}
    qualities = _qualities(arrays["recon"], arrays["target"])
    estimate, truth = (jnp.abs(_signals(arrays[key][0])) for key in ("recon", "target"))
    uniform = metrics.ssim(estimate, truth, data_range=jnp.max(truth), window="uniform")
    return {
        "psnr": qualities["psnr"],
        "ssim_msssim_2chan_range2": qualities["ssim_msssim"],
        "ssim_skimage_modulus_image0": uniform,
    }


def _reconstructions(weights, data, noise, arrays: Arrays, setup: Setup) -> Arrays:
    out: Arrays = {}
    short, long = arrays["cfg/K_short"].item(), arrays["cfg/K_long"].item()
    run = partial(_run, weights, setup=setup)
    for name in ("vanilla", "smug", "wsmug"):
        given = None if name == "vanilla" else noise
        encoder = WeightEncoder() if name == "wsmug" else None
        images, shares = run(data, given, num_iterations=long, encoder=encoder)
        # The first iterates do not depend on how many follow.
        for count in (short, long):
            out[f"{name}{count}/out"] = images[:, count]
            if shares is not None:
                out[f"{name}{count}/weights"] = shares[:count]
            qualities = _qualities(images[:, count], arrays["target"])
            out |= {f"metrics/{name}{count}/{key}": value for key, value in qualities.items()}
    out["rse2e/out"] = _end_to_end(
        weights, _first(data), arrays["rse2e/noise_masked"][None], setup=setup, num_iterations=short
    )
    # This reading averages after the data step, which is affine: that comes to the same.
    given = arrays["smugv0/noise"][None]
    images, _ = run(_first(data), given, num_iterations=short, encoder=None)
    out["smugv0/out"] = images[:, -1]
    return out


def _losses(weights, data, noise, arrays: Arrays, setup: Setup) -> Arrays:
    out: Arrays = {}
    noise = noise[:, : arrays["cfg/K_short"].item()]
    weight = arrays["cfg/loss_lambda"].item()
    for name, encoder in ENCODERS.items():
        loss, parts, gradient = _train(
            weights, data, noise, setup=setup, weight=weight, encoder=encoder
        )
        run: Arrays = {
            "loss": loss,
            "ustab": parts["stability"],
            "recon_mse": parts["reconstruction"],
            "grad_norm": np.sqrt(sum(np.sum(np.square(g)) for g in gradient.values())),
        }
        kept, room = ("w/", "grad/") if encoder is None else ("we/", "grad_we/")
        run |= {
            key.replace(kept, room, 1): value
            for key, value in gradient.items()
            if key.startswith(kept) and "running" not in key
        }
        out |= {f"train/{name}/{key}": value for key, value in run.items()}
    return out


def _attacks(weights, data, arrays: Arrays, setup: Setup) -> Arrays:
    epsilon, alpha = arrays["cfg/pgd_epsilon"].item(), arrays["cfg/pgd_alpha"].item()
    step = partial(_attack_step, weights, setup=setup, epsilon=epsilon, step_size=alpha / epsilon)
    short, long = arrays["cfg/K_short"].item(), arrays["cfg/K_long"].item()

    delta, deltas, losses = arrays["pgd_vanilla/start_delta"], [], []
    first = _ascent(weights, data, delta, setup=setup, num_iterations=short)
    for _ in range(arrays["cfg/pgd_steps"].item()):
        delta, clean, before, after = step(data, delta, None, num_iterations=short)
        deltas.append(delta)
        losses.append(before)
    attacked = data | {"kspace_masked": data["kspace_masked"] + delta}
    images, _ = _run(weights, attacked, None, setup=setup, num_iterations=long, encoder=None)
    out: Arrays = {
        "pgd_vanilla/delta": np.stack(deltas),
        # The peer differentiates the mean over the batch, ours are per signal.
        "pgd_vanilla/grad_first": first / len(first),
        "pgd_vanilla/loss_clean_start_steps": np.stack([clean, *losses, after]),
        "pgd_vanilla/out_adv": images[:, short],
    }

    delta, deltas, noise = arrays["pgd_smug/start_delta"], [], arrays["pgd_smug/noise"]
    # One row after the other: each step of the attack draws anew in every iteration.
    for given in noise.reshape(_SMUG_STEPS, 1, -1, *noise.shape[1:]):
        delta, *_ = step(_first(data), delta, given, num_iterations=given.shape[1])
        deltas.append(delta)
    return out | {"pgd_smug/delta": np.stack(deltas)}


def _first(data: Arrays) -> Arrays:
    return {key: value[:1] for key, value in data.items()}


def _clamps(arrays: Arrays) -> Arrays:
    centre, point = arrays["clamp/center"], arrays["clamp/input"]
    radii: dict[Norm, float] = {"linf": 0.03, "l2": 0.2}
    return {
        f"clamp/{norm}": centre
        + jax.vmap(attacks.Threat(radius, norm=norm).ball(point).project)(point - centre)
        for norm, radius in radii.items()
    }


def _complex(a) -> Array:
    return jax.lax.complex(a[..., 0, :, :], a[..., 1, :, :])


def _signals(a) -> Array:
    """Turns golden images `(..., 2, height, width)` into the library's."""
    return _complex(a)[..., None]


def _coils(a) -> Array:
    """Turns golden k-space or maps `(..., coils, 2, height, width)` into the library's."""
    return jnp.moveaxis(_complex(a), -3, -1)


def _pack_coils(k: Array) -> Array:
    k = jnp.moveaxis(k, -1, -3)
    return jnp.stack([k.real, k.imag], -3)


def _parameters(weights: Arrays) -> Any:
    """Returns the parameters of both networks, as a function that derivatives go through."""
    of = lambda prefix: {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    return {"network": didn_parameters(of("w/")), "weight": encoder_parameters(of("we/"))}


def _batch(data: Arrays) -> Batch:
    signal = _signals(data["target"])
    return Batch(
        signal,
        _coils(data["kspace_masked"]),
        jax.vmap(operators.sense)(data["mask"], _coils(data["smap"])),
        jnp.ones(len(signal), signal.real.dtype),
        jnp.arange(len(signal)),
        operator_axes=0,
    )


def _reconstructor(
    setup: Setup,
    num_iterations: int,
    smoothing: Smoothing | None = None,
    encoder: WeightEncoder | None = None,
) -> unroll.Reconstructor:
    solve = unroll.by_conjugate_gradients(setup.cg_iterations)
    return unroll.unrolled(
        partial(unroll.half_quadratic, solve=solve),
        DIDN(8),
        {"regularisation": unroll.scalar.fixed(setup.regularisation)},
        num_iterations=num_iterations,
        smoothing=smoothing,
        weight_network=encoder,
    )


@jax.jit
def _operators(data, image) -> Arrays:
    batch = _batch(data)
    forward = jax.vmap(lambda operator, x: operator.forward(x))
    adjoint = jax.vmap(lambda operator, y: operator.adjoint(y))
    measured = forward(batch.operator, _signals(image))
    return {
        "Ax": _pack_coils(measured),
        "AHAx": pack_signal(adjoint(batch.operator, measured)),
        "AHy": pack_signal(adjoint(batch.operator, batch.measurement)),
    }


@partial(jax.jit, static_argnames="setup")
def _data_step(data, denoised, cotangent, *, setup) -> Arrays:
    """The data step from `denoised`, and its derivatives along `cotangent`."""
    batch = _batch(data)
    of_one = lambda operator, x: solvers.regularised_normal(operator, setup.regularisation)(x)
    # As the peer, all systems of the batch as one, which shows as long as they are not converged.
    matvec = partial(jax.vmap(of_one), batch.operator)
    back_projection = jax.vmap(lambda operator, y: operator.adjoint(y))(
        batch.operator, batch.measurement
    )

    def fixed(denoised, back_projection, num_iterations):
        start = _signals(denoised)
        b = _signals(back_projection) + setup.regularisation * start
        return pack_signal(
            solvers.conjugate_gradients(matvec, b, start=start, num_iterations=num_iterations)
        )

    def exact(denoised):
        solve = unroll.by_conjugate_gradients_to_tolerance()
        b = back_projection + setup.regularisation * _signals(denoised)
        of_one = lambda operator, b, x: solve(operator, b, setup.regularisation, x)
        return pack_signal(jax.vmap(of_one)(batch.operator, b, _signals(denoised)))

    run = partial(fixed, num_iterations=setup.cg_iterations)
    solution, pull_back = jax.vjp(run, denoised, pack_signal(back_projection))
    of_denoised, of_back_projection = pull_back(cotangent)
    _, pull_back = jax.vjp(exact, denoised)
    return {
        "solution": solution,
        "exact_solution": solution,  # where the peer stops, ours goes on
        "solution_cap3": fixed(denoised, pack_signal(back_projection), 3),
        "vjp_dn": of_denoised,
        "vjp_AHy": of_back_projection,
        "train_vjp_dn": pull_back(cotangent)[0],
    }


@partial(jax.jit, static_argnames=("setup", "num_iterations", "encoder"))
def _run(weights, data, noise, *, setup, num_iterations, encoder):
    """Returns all iterates, and the weights of the noisy copies of each but the last."""
    params, batch = _parameters(weights), _batch(data)
    smoothing = None if noise is None else recorded(_signals(noise))
    reconstructor = _reconstructor(setup, num_iterations, smoothing, encoder)

    def one(x, y, operator, key):
        del x
        trajectory = reconstructor.apply(
            params, operator, y, smoothing_key=key, return_trajectory=True
        )
        if encoder is None:
            return trajectory, None

        def share(k, s):
            of_sample = jax.random.fold_in(jax.random.fold_in(key, k), s)
            return reconstructor.weight(params, smoothing.perturb(of_sample, trajectory[k]))

        along_samples = jax.vmap(share, (None, 0))
        numbers = jnp.arange(num_iterations), jnp.arange(smoothing.num_samples)
        return trajectory, jax.vmap(along_samples, (0, None))(*numbers)

    trajectory, shares = batch.lift(one, jax.random.key(0))
    return pack_signal(trajectory), None if shares is None else jnp.moveaxis(shares, 0, -1)


@partial(jax.jit, static_argnames=("setup", "weight", "encoder"))
def _train(weights, data, noise, *, setup, weight, encoder):
    def loss(weights):
        reconstructor = _reconstructor(setup, noise.shape[1], recorded(_signals(noise)), encoder)
        scheme = schemes.unrolled_stability(reconstructor, weight=weight)
        value, parts = scheme(_parameters(weights), _batch(data), jax.random.key(0))
        return value / _PARTS, jax.tree.map(lambda part: part / _PARTS, parts)

    (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    return value, parts, gradient


@partial(jax.jit, static_argnames="setup")
def _pretrain(weights, data, noise, *, setup):
    loss = schemes.denoising(_reconstructor(setup, 1), recorded(_signals(noise)))
    return loss(_parameters(weights), _batch(data), jax.random.key(0))[0] / _PARTS


def _objective_of(weights, noise, setup, num_iterations):
    """Returns the function from an example to what is attacked."""
    params = _parameters(weights)
    smoothing = None if noise is None else recorded(_signals(noise))
    apply = _reconstructor(setup, num_iterations, smoothing).apply

    def objective_of(x, y, operator, key) -> attacks.Objective:
        reconstruct = partial(apply, params, operator, smoothing_key=key)
        error = attacks.reconstruction_error(reconstruct, operator, x, y)
        return lambda delta: error(delta) / _PARTS

    return objective_of


@partial(jax.jit, static_argnames=("setup", "num_iterations"))
def _ascent(weights, data, delta, *, setup, num_iterations) -> Array:
    objective_of = _objective_of(weights, None, setup, num_iterations)

    def one(x, y, operator, key, delta):
        return value_and_ascent(objective_of(x, y, operator, key), delta)[1]

    return _pack_coils(_batch(data).lift(one, jax.random.key(0), _coils(delta)))


@partial(jax.jit, static_argnames=("setup", "num_iterations", "epsilon", "step_size"))
def _attack_step(weights, data, delta, noise, *, setup, num_iterations, epsilon, step_size):
    """Returns the next perturbation, and the loss without any, before and after the step."""
    objective_of = _objective_of(weights, noise, setup, num_iterations)
    threat = attacks.Threat(epsilon, norm="linf")

    def one(x, y, operator, key, delta):
        ball = threat.ball_at(operator, x, y)
        search = attacks.pgd(ball, num_steps=1, step_size=step_size, first="given", keep_best=False)
        delta, info = search(objective_of(x, y, operator, key), delta, jax.random.key(0))
        return delta, info.clean, *info.history[0]

    delta, *losses = _batch(data).lift(one, jax.random.key(0), _coils(delta))
    return _pack_coils(delta), *(jnp.mean(loss) for loss in losses)


@partial(jax.jit, static_argnames=("setup", "num_iterations"))
def _end_to_end(weights, data, noise, *, setup, num_iterations) -> Array:
    # The peer cuts what it denoises, not what it measures.
    smoothing = recorded(_coils(noise), clamp=None)
    reconstructor = unroll.end_to_end(
        _reconstructor(setup, num_iterations), smoothing, "measurement"
    )
    params = _parameters(weights)

    def one(x, y, operator, key):
        del x
        return reconstructor.apply(params, operator, y, smoothing_key=key)

    return pack_signal(_batch(data).lift(one, jax.random.key(0)))


@jax.jit
def _qualities(image, target) -> Arrays:
    estimate, truth = _signals(image), _signals(target)
    channels = [unroll.to_channels(a) for a in (estimate, truth)]
    return {
        "psnr": metrics.psnr(estimate, truth, peak=jnp.max(jnp.abs(truth))),
        "ssim_msssim": jnp.mean(jax.vmap(partial(metrics.ssim, data_range=2.0))(*channels)),
    }
