"""A config becomes operators, a reconstructor, a training loss and data."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import attacks, networks, operators, schemes, unroll
from jitter_jax.config import check_fields
from jitter_jax.data.augment import augment
from jitter_jax.data.measure import Measure, OperatorFactory, make_measure, operator_of
from jitter_jax.data.pipeline import Example, Source, evaluation_batches
from jitter_jax.data.sources import IMAGE_KINDS, PICTURE_KINDS, make_sources
from jitter_jax.devices import Devices, choose_devices, devices_at_most
from jitter_jax.evaluate.evaluator import Evaluator, spread_evaluator
from jitter_jax.evaluate.table import make_evaluators, standard_conditions
from jitter_jax.keys import subkey
from jitter_jax.metrics import Metric, make_metrics
from jitter_jax.networks.layers import activation, keep_costly
from jitter_jax.operator_config import (
    MRI,
    PICTURES,
    Redraw,
    make_operator,
    make_redraw,
    start_matrix,
)
from jitter_jax.smoothing import Smoothing, chunk_for_memory
from jitter_jax.train.step import Loss as RawLoss

Array = jax.Array
_MEASURING = ("noise_std", "fresh_noise", "normalisation")


class Experiment(NamedTuple):
    """Everything that a config describes; the parts are the library's own functions.

    Attributes:
        config: the config, resolved.
        operator: the operator A of all signals, or a function that makes each signal's own.
        reconstructor: the unrolled reconstruction H.
        loss: the training loss of a raw batch from the input pipeline, which it measures first.
        sources: data sets by name: train, validation, test and the out-of-distribution ones.
        measure: measures raw examples of a named set.
        metrics: what is measured of an estimate, by name.
        evaluators: compiled evaluations by the name of their attack.
        threat: what the attacks of the evaluation may do.
        devices: over which the signals of an evaluation are spread.
        skipped: data files that were left out, each with the reason.
    """

    config: ConfigDict
    operator: operators.LinearOperator | OperatorFactory
    reconstructor: unroll.Reconstructor
    loss: RawLoss
    sources: dict[str, Source]
    measure: Measure
    metrics: dict[str, Metric]
    evaluators: dict[str, Evaluator]
    threat: attacks.Threat
    devices: Devices
    skipped: tuple[tuple[Path, str], ...]


def resolve(config: ConfigDict) -> ConfigDict:
    """Return a copy of a config in which nothing is implied.

    SPGD jittering is SGD jittering of the proximal unroll: the scheme sets the method.

    Raises:
        ValueError: a field is missing or unknown.
    """
    check_fields(config)
    config = config.copy_and_resolve_references()
    if config.scheme.name == "spgd_jitter":
        config.unroll.method = "proximal"
    return config


def build(
    config: ConfigDict, *, num_iterations: int | None = None, frozen_params: Any = None
) -> Experiment:
    """Build the experiment of a config.

    Every part is made, also those that only the end of a run needs, so that a value that is not
    accepted is refused here.

    Args:
        config: with the fields of `jitter_jax.config.default_config`.
        num_iterations: K while evaluating; that of the config if None.
        frozen_params: of the denoiser that makes the target of unrolled stability; None is the one
            that is trained.

    Raises:
        ValueError: a field has a value that is not accepted; the message names it.
        FileNotFoundError: a data file is missing.
    """
    config = resolve(config)
    if config.operator.name in MRI and config.data.kind not in IMAGE_KINDS:
        raise ValueError(
            f"operator.name={config.operator.name!r} is not accepted with "
            f"data.kind={config.data.kind!r}: images are expected, one of {IMAGE_KINDS}"
        )
    if config.operator.name in PICTURES and config.data.kind not in PICTURE_KINDS:
        raise ValueError(
            f"operator.name={config.operator.name!r} is not accepted with "
            f"data.kind={config.data.kind!r}: pictures are expected, one of {PICTURE_KINDS}"
        )
    if (config.data.augment.patch or config.data.augment.flips) and (
        config.data.kind not in PICTURE_KINDS
    ):
        raise ValueError(
            f"data.augment is not accepted with data.kind={config.data.kind!r}: pictures are "
            f"expected, one of {PICTURE_KINDS}"
        )
    if config.operator.name in MRI and (config.operator.name == "sense") != (
        config.data.coils.num > 0
    ):
        raise ValueError(
            f"operator.name={config.operator.name!r} is not accepted with "
            f"data.coils.num={config.data.coils.num}: 'sense' is the operator of coils, and the "
            "others are of a single one, data.coils.num=0"
        )
    takes_measurement = config.unroll.start == "measurement" or config.unroll.sees_measurement
    if config.operator.name == "sense" and takes_measurement:
        raise ValueError(
            "unroll.start='measurement' and unroll.sees_measurement=True are not accepted with "
            "operator.name='sense': k-space of coils does not have the shape of an image"
        )
    denoises = config.pretrain.num_steps > 0 or config.scheme.name == "denoising"
    if denoises and config.unroll.method == "gradient":
        raise ValueError(
            "a first stage (pretrain.num_steps) and the scheme 'denoising' are not accepted with "
            "unroll.method='gradient': its learned step is the gradient of a regulariser, and no "
            "denoiser"
        )
    operator, reconstructor = make_operator(config.operator), make_reconstructor(config)
    skipped: list[tuple[Path, str]] = []
    sources = make_sources(**_plain(config.data, without=_MEASURING), on_skip=skipped.append)
    metrics = make_metrics(**config.metrics.to_dict())
    measure = make_measure(
        operator,
        seed=config.data.seed,
        noise_std=config.data.noise_std,
        normalisation=config.data.normalisation,
    )
    scheme = make_schemes(
        config, reconstructor, sources["train"], measure, frozen_params=frozen_params
    )[config.scheme.name]
    most_signals = max(len(s) for name, s in sources.items() if name not in ("train", "validation"))
    devices = _evaluation_devices(config.devices.num, most_signals)
    evaluators = make_evaluators(
        reconstructor,
        metrics,
        make_attack(config.evaluate.attack),
        num_draws=config.evaluate.num_draws,
        smoothing_draws=config.evaluate.smoothing_draws,
        on_sphere=config.evaluate.on_sphere,
        energy_shares=attacks.kspace_energy if config.operator.name in MRI else None,
        num_iterations=num_iterations,
    )
    experiment = Experiment(
        config=config,
        operator=operator,
        reconstructor=reconstructor,
        loss=_raw_loss(scheme, measure, make_redraw(operator), config.data),
        sources=sources,
        measure=jax.jit(measure, static_argnums=1),
        metrics=metrics,
        evaluators={
            name: spread_evaluator(evaluator, devices) for name, evaluator in evaluators.items()
        },
        threat=attacks.Threat(**config.evaluate.threat.to_dict()),
        devices=devices,
        skipped=tuple(skipped),
    )
    _check_examples(experiment)
    return experiment


def _evaluation_devices(num: int, most_signals: int) -> Devices:
    """Return the devices for an evaluation; one that is not needed stays out of it.

    Batches of signals are filled up, so that any number of devices divides them.
    """
    if num == 0:
        processes = jax.process_count()
        num = min(devices_at_most(), -(-most_signals // processes) * processes)
    return choose_devices(num, num, name="signals")


def _plain(config: ConfigDict, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in without}


def _one_of(field: str, value: Any, choices: Any) -> Any:
    """Return `choices[value]`, or say what is accepted."""
    if value not in choices:
        raise ValueError(f"{field}={value!r} is not accepted: one of {list(choices)} is expected")
    return choices[value]


def example_operator(config: ConfigDict) -> operators.LinearOperator:
    """Return the operator of a signal of `signal_type`; in MRI fully sampled, by equal coils."""
    shape, num_coils = signal_type(config)["shape"], max(config.data.coils.num, 1)
    maps = jnp.full((*shape[:2], num_coils), num_coils**-0.5, jnp.complex64)
    mask, signal = jnp.ones(shape[:2], bool), jnp.zeros(**signal_type(config))
    arrays = {"mask": mask, "maps": maps, "signal": signal}
    return operator_of(make_operator(config.operator), arrays)


def make_reconstructor(config: ConfigDict) -> unroll.Reconstructor:
    """Return the reconstructor that `network`, `unroll` and `smoothing` of a config describe."""
    if config.network.weights:
        return _published(config)
    if config.unroll.method == "ista_net_pp":
        return _ista_net_pp(config)
    signal = signal_type(config)
    in_precision = partial(networks.in_precision, precision=_precision(config.network))
    parts = 2 if jnp.issubdtype(signal["dtype"], jnp.complexfloating) else 1
    methods: dict[str, Callable[..., Any]] = {
        "gradient": unroll.gradient_descent,
        "proximal": unroll.proximal_gradient,
        "half_quadratic": partial(unroll.half_quadratic, solve=make_solver(config)),
        "half_quadratic_gradient": partial(
            unroll.half_quadratic_gradient, update=config.unroll.splitting.form
        ),
    }
    where = config.smoothing.where
    _one_of("smoothing.where", where, dict.fromkeys(PLACES))
    make = partial(
        unroll.unrolled,
        _one_of("unroll.method", config.unroll.method, methods),
        in_precision(make_network(config.network, out_channels=parts * signal["shape"][-1])),
        make_scalars(config.unroll),
        num_iterations=config.unroll.num_iterations,
        start=config.unroll.start,
        sees_measurement=config.unroll.sees_measurement,
        remat=_one_of("unroll.remat", config.unroll.remat, REMATS),
    )
    bare = make()
    encoder = None
    if where == "weighted_step":
        encoder = in_precision(
            networks.WeightEncoder(config.smoothing.weight_depth, config.smoothing.weight_width)
        )
    smoothing = make_smoothing(config, bare, encoder)
    if where == "none":
        return bare
    if where == "end_to_end":
        if config.unroll.start != "adjoint":
            raise ValueError(
                f"smoothing.where='end_to_end' is not accepted with unroll.start="
                f"{config.unroll.start!r}: its noise is on A^H y, so 'adjoint' is expected"
            )
        return unroll.end_to_end(bare, smoothing, config.smoothing.noise_on)
    return make(smoothing=smoothing, weight_network=encoder)


PRECISIONS = {name: name for name in get_args(networks.Precision)}
REMATS = {"keep_costly": keep_costly, "full": True, "none": False}


def _precision(config: ConfigDict) -> networks.Precision:
    return _one_of("network.precision", config.precision, PRECISIONS)


def _published(config: ConfigDict) -> unroll.Reconstructor:
    if config.smoothing.where != "none":
        raise ValueError(
            f"network.weights is not accepted with smoothing.where={config.smoothing.where!r}: "
            "published networks are not smoothed, so 'none' is expected"
        )
    return unroll.load_published(
        config.network.weights,
        start_matrix=start_matrix(config.operator),
        precision=_precision(config.network),
        remat=_one_of("unroll.remat", config.unroll.remat, REMATS),
    )


def _ista_net_pp(config: ConfigDict) -> unroll.Reconstructor:
    if config.operator.name != "block_sampling" or config.smoothing.where != "none":
        raise ValueError(
            "unroll.method='ista_net_pp' is not accepted with operator.name="
            f"{config.operator.name!r} and smoothing.where={config.smoothing.where!r}: "
            "'block_sampling' and 'none' are expected"
        )
    return unroll.ista_net_pp(
        num_phases=config.unroll.num_iterations,
        width=config.network.width,
        num_blocks=config.network.depth,
        precision=_precision(config.network),
        remat=_one_of("unroll.remat", config.unroll.remat, REMATS),
    )


def make_smoothing(
    config: ConfigDict, bare: unroll.Reconstructor, encoder: unroll.Network | None
) -> Smoothing:
    """Return the noise that `config.smoothing` describes, and how much of it is drawn at once.

    Args:
        config: the whole config.
        bare: the reconstructor that is to be smoothed.
        encoder: what weighs the samples, if anything does.
    """
    fields = config.smoothing
    smoothing = Smoothing(
        fields.sigma, fields.num_samples, fields.chunk or None, fields.clamp or None
    )
    if fields.where == "none" or fields.chunk:
        return smoothing
    x, operator = jnp.zeros(**signal_type(config)), example_operator(config)
    key, most = jax.random.key(0), fields.num_samples
    given = jax.eval_shape(operator.forward, x)
    params = {"bare": jax.eval_shape(bare.init, key, operator, jnp.zeros_like(given))}

    def sample(tree: tuple[Any, Array]) -> Array:
        own, seen = tree
        if fields.where == "end_to_end" or bare.learned_step is None:
            return bare.apply(own["bare"], operator, seen)
        step = bare.learned_step(own["bare"], seen)
        if encoder is None:
            return step
        return encoder.apply(own["weight"], unroll.to_channels(seen)) * step

    if fields.where != "end_to_end" and bare.learned_step is not None:
        # Without chunks a backward pass may keep the samples of all iterations.
        given, most = x, most * config.unroll.num_iterations
        if encoder is not None:
            params["weight"] = jax.eval_shape(encoder.init, key, unroll.to_channels(x))
    chunk = chunk_for_memory(
        sample,
        (params, jax.ShapeDtypeStruct(given.shape, given.dtype)),
        budget_bytes=fields.memory_gb * 1e9 / config.train.batch_size,
        num_samples=most,
    )
    return dataclasses.replace(
        smoothing, chunk=min(chunk, fields.num_samples) if chunk < most else None
    )


def make_solver(config: ConfigDict) -> unroll.Solve:
    """Return the data step's solver that `config.unroll.solver` describes."""
    fields, closed = config.unroll.solver, unroll.in_closed_form
    choices: dict[str, Callable[[], unroll.Solve]] = {
        "conjugate_gradients": lambda: unroll.by_conjugate_gradients(fields.num_iterations),
        "to_tolerance": lambda: unroll.by_conjugate_gradients_to_tolerance(
            fields.tolerance, fields.num_iterations
        ),
        "closed_form": lambda: closed,
    }
    if fields.name == "closed_form" and config.operator.name != "cartesian_mri":
        raise ValueError(
            "unroll.solver.name='closed_form' is not accepted: it is of operator.name="
            f"'cartesian_mri', and the config has {config.operator.name!r}"
        )
    return _one_of("unroll.solver.name", fields.name, choices)()


def signal_type(config: ConfigDict) -> dict[str, Any]:
    """Return `shape` and `dtype` of a signal.

    `(2,)` for points, `(time, traces, 1)` for sections, `(height, width, 1)` for images, complex,
    and pictures. Signals of a user's own file may have another size, as patches have; networks of
    sections, images and pictures fit any.
    """
    if config.data.kind in IMAGE_KINDS:
        return {"shape": (*config.data.images.shape, 1), "dtype": jnp.complex64}
    if config.data.kind in PICTURE_KINDS:
        return {"shape": (*config.data.images.shape, 1), "dtype": jnp.float32}
    points = config.data.kind == "points"
    shape = (2,) if points else (*config.data.sections.shape, 1)
    return {"shape": shape, "dtype": jnp.float32}


def make_network(config: ConfigDict, *, out_channels: int) -> unroll.Network:
    """Return the Linen module that `config.network` describes."""
    act = activation(config.activation)
    choices: dict[str, Callable[[], Any]] = {
        "mlp": lambda: networks.MLP(config.depth, config.width, out_channels, activation=act),
        "seismic_cnn": lambda: networks.SeismicCNN(
            config.width, config.num_groups, out_channels, activation=act
        ),
        "dncnn": lambda: networks.DnCNN(
            config.depth,
            config.width,
            config.num_groups,
            out_channels,
            residual=config.residual,
            activation=act,
        ),
        "unet": lambda: networks.UNet(
            config.width, config.depth, out_channels, residual=config.residual, activation=act
        ),
        "didn": lambda: networks.DIDN(
            config.width, config.depth, out_channels, residual=config.residual
        ),
        "modl_cnn": lambda: networks.MoDLCNN(
            config.depth, config.width, out_channels, residual=config.residual
        ),
        "dpdnn_unet": lambda: networks.DPDNNUNet(config.width, config.depth),
    }
    return _one_of("network.name", config.name, choices)()


def make_scalars(config: ConfigDict) -> dict[str, unroll.scalar.Scalar]:
    """Return the numbers that the method of `config.unroll` takes, by name."""
    if config.method == "half_quadratic_gradient":
        return {
            name: unroll.scalar.free(np.full(config.num_iterations, config.splitting[name]))
            for name in ("delta", "eta")
        }
    name = "regularisation" if config.method == "half_quadratic" else "step_size"
    return {name: make_scalar(f"unroll.{name}", config[name])}


def make_scalar(field: str, config: ConfigDict) -> unroll.scalar.Scalar:
    """Return the step size or the regularisation that a part of `config.unroll` describes."""
    choices: dict[str, Callable[[], unroll.scalar.Scalar]] = {
        "fixed": lambda: unroll.scalar.fixed(config.value),
        "exponential": lambda: unroll.scalar.exponential(config.init),
        "sigmoid": lambda: unroll.scalar.sigmoid(config.init, config.scale),
    }
    return _one_of(f"{field}.name", config.name, choices)()


# Where a reconstruction is averaged over noise.
PLACES = ("none", "step", "weighted_step", "end_to_end")
SCHEMES = (
    "mse",
    "adversarial",
    "input_jitter",
    "sgd_jitter",
    "spgd_jitter",
    "denoising",
    "unrolled_stability",
    "smt_adv",
    "smt_grad",
    "jacobian",
)


def make_schemes(
    config: ConfigDict,
    reconstructor: unroll.Reconstructor,
    train: Source,
    measure: Measure,
    *,
    frozen_params: Any = None,
) -> dict[str, schemes.Loss]:
    """Return the training losses by name; all that the reconstructor allows, to refuse bad values.

    Args:
        config: the whole config.
        reconstructor: the reconstruction H.
        train: training examples, from which a closed-form level of input jittering is computed.
        measure: measures them.
        frozen_params: see `build`.
    """
    scheme = config.scheme
    _one_of("scheme.name", scheme.name, dict.fromkeys(SCHEMES))
    jittered = schemes.sgd_jitter(reconstructor, make_jitter(config))
    threat = attacks.Threat(**scheme.adversarial.threat.to_dict())
    attack = make_attack(scheme.adversarial.attack)
    level = input_level(scheme.input_jitter, train, measure, config.data.noise_std)
    made = {
        "mse": schemes.mse(reconstructor),
        "adversarial": schemes.adversarial(reconstructor, threat, attack),
        "input_jitter": schemes.input_jitter(reconstructor, level),
        "sgd_jitter": jittered,
        "spgd_jitter": jittered,
    }
    if scheme.name in ("smt_adv", "smt_grad", "jacobian"):
        made[scheme.name] = _certified_defence(scheme, reconstructor, threat)
    if scheme.name == "denoising":
        fields = scheme.denoising
        noise = Smoothing(fields.sigma, fields.num_samples, clamp=fields.clamp or None)
        made["denoising"] = schemes.denoising(reconstructor, noise)
    if scheme.name == "unrolled_stability":
        if config.smoothing.where not in ("step", "weighted_step"):
            raise ValueError(
                "scheme.name='unrolled_stability' is not accepted with smoothing.where="
                f"{config.smoothing.where!r}: 'step' or 'weighted_step' is expected"
            )
        stability = scheme.unrolled_stability
        made["unrolled_stability"] = schemes.unrolled_stability(
            reconstructor,
            weight=stability.weight,
            target=stability.target,
            frozen_params=frozen_params,
        )
    return made


def _certified_defence(
    config: ConfigDict, reconstructor: unroll.Reconstructor, threat: attacks.Threat
) -> Any:
    """Return the loss, or that of a level, of one of the defences that certificates come with."""
    if config.name == "jacobian":
        return schemes.jacobian(reconstructor, **config.jacobian.to_dict())
    fields = config[config.name]
    smoothing = Smoothing(fields.sigma, fields.num_samples, fields.chunk or None)
    if config.name == "smt_grad":
        make = schemes.smt_grad_levels if levels_of(config) else schemes.smt_grad
        return make(reconstructor, smoothing, num_levels=fields.num_levels, space=threat.space)
    search = config.adversarial.attack
    if not fields.fresh_draws:
        return schemes.smt_adv(reconstructor, threat, make_attack(search), smoothing)
    return schemes.smt_adv_fresh(
        reconstructor,
        threat,
        smoothing,
        num_steps=search.num_steps,
        step_size=search.step_size or None,
    )


def levels_of(config: ConfigDict) -> int | None:
    """Return how many steps the optimizer takes for each batch of `config.scheme`; None is one."""
    steps = _one_of(
        "scheme.smt_grad.step",
        config.smt_grad.step,
        {"level": config.smt_grad.num_levels, "accumulated": None},
    )
    return steps if config.name == "smt_grad" else None


def input_level(config: ConfigDict, train: Source, measure: Measure, noise_std: float) -> float:
    """Return the standard deviation of input jittering: given, or by the closed form.

    The closed form takes its numbers from the first 64 training examples, as they are measured,
    and the size of a measurement, in real numbers, from the first.
    """
    _one_of("scheme.input_jitter.level", config.level, {"fixed": None, "krainovic": None})
    if config.level == "fixed":
        return config.sigma
    batch = measure(next(evaluation_batches(train, min(64, len(train)))), "train")
    y, operator = batch.measurement[0], batch.operator_of(0)
    parts = 2 if jnp.iscomplexobj(y) else 1  # real numbers, of those that are measured
    measured = True if (support := operator.support()) is None else support
    size = parts * int(jnp.sum(jnp.broadcast_to(measured, y.shape)))
    return schemes.krainovic_level(
        config.epsilon,
        noise_std=float(noise_std * jnp.mean(1 / batch.scale)),
        signal_energy=float(jnp.sum(jnp.square(jnp.abs(batch.signal))) / len(batch)),
        measurement_size=size,
        signal_dimension=config.signal_dimension or min(parts * batch.signal[0].size, size),
    )


def make_jitter(config: ConfigDict) -> unroll.Jitter:
    """Return the jitter that `config.scheme.jitter` describes."""
    jitter, num_iterations = config.scheme.jitter, config.unroll.num_iterations
    if jitter.kind == "matched":
        stepped = config.unroll.method != "half_quadratic"
        if not stepped or config.unroll.step_size.name != "fixed" or jitter.schedule:
            raise ValueError(
                "scheme.jitter.kind='matched' is a schedule for a fixed gradient step: "
                "unroll.step_size.name='fixed', an empty scheme.jitter.schedule and another "
                "unroll.method than 'half_quadratic' are expected"
            )
        step_size = config.unroll.step_size.value
        schedule = unroll.jitter.matched_jitter(jitter.sigma, step_size, num_iterations)
        return unroll.jitter.unit_norm(schedule)
    kinds = {
        "absolute": unroll.jitter.absolute,
        "relative": unroll.jitter.relative,
        "unit_norm": unroll.jitter.unit_norm,
        "repo": unroll.jitter.repo,
        "matched": None,
    }
    make = _one_of("scheme.jitter.kind", jitter.kind, kinds)
    level = np.asarray(jitter.schedule or jitter.sigma, np.float32)
    if level.shape not in ((), (num_iterations,)):
        raise ValueError(
            f"scheme.jitter.schedule has {level.size} levels, but unroll.num_iterations is "
            f"{num_iterations}"
        )
    return make(level)


def make_attack(config: ConfigDict) -> Callable[[attacks.Ball], attacks.Attack]:
    """Return the search that an attack config describes, to be made from a ball."""
    if _one_of("attack.name", config.name, {"pgd": "pgd", "fgsm": "fgsm"}) == "fgsm":
        return attacks.fgsm
    options = _plain(config, without=("name",))
    options["step_size"] = options["step_size"] or None
    attacks.pgd(attacks.Ball(jnp.float32(0), "l2"), **options)  # refuses bad options now
    return lambda ball: attacks.pgd(ball, **options)


def _raw_loss(scheme: schemes.Loss, measure: Measure, redraw: Redraw, data: ConfigDict) -> RawLoss:
    def loss(params, raw, key, *level):
        key_noise, key_scheme = jax.random.split(key)
        if data.augment.patch or data.augment.flips:
            raw = augment(raw, **data.augment.to_dict(), key=subkey(key, "augment"))
        raw = redraw(raw, subkey(key, "operator"))
        batch = measure(raw, "train", key_noise if data.fresh_noise else None)
        return scheme(params, batch, key_scheme, *level)

    return loss


def _check_patch(patch: tuple[int, ...], examples: Example) -> None:
    sides = examples["signal"].shape[1:3]
    if patch and (
        len(patch) != 2 or not all(1 <= p <= n for p, n in zip(patch, sides, strict=True))
    ):
        raise ValueError(
            f"data.augment.patch={patch} is not accepted: (height, width) of at most {sides}, the "
            "size of the training pictures, is expected"
        )


def _check_examples(experiment: Experiment) -> None:
    """Read one example of every set and follow its shape to the metrics."""
    standard_conditions(
        experiment.config.data.out_of_distribution, experiment.config.evaluate.attacked
    )  # refuses unknown names now
    needs_volumes = "volume" in (
        experiment.config.metrics.full_scale,
        experiment.config.metrics.per,
    )

    def follow(examples, name):
        x = experiment.measure(examples, name).signal[0]
        return [metric.function(x, x) for metric in experiment.metrics.values()]

    for name, source in experiment.sources.items():
        examples = next(evaluation_batches(source, 1))
        if name == "train":
            _check_patch(experiment.config.data.augment.patch, examples)
        if needs_volumes and not {"volume", "volume_peak"} <= set(examples):
            raise ValueError(
                "metrics.full_scale='volume' and metrics.per='volume' are not accepted: the "
                f"examples of the {name} set are not slices of volumes whose largest value is known"
            )
        jax.eval_shape(partial(follow, name=name), examples)
