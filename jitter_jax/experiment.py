"""A config becomes operators, a reconstructor, a training loss and data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import attacks, networks, operators, schemes, unroll
from jitter_jax.config import check_fields
from jitter_jax.data.measure import Measure, OperatorFactory, make_measure, operator_of
from jitter_jax.data.pipeline import Source, evaluation_batches
from jitter_jax.data.sources import IMAGE_KINDS, make_sources
from jitter_jax.evaluate.evaluator import Evaluator
from jitter_jax.evaluate.table import make_evaluators
from jitter_jax.metrics import Metric, make_metrics
from jitter_jax.networks.layers import activation, keep_costly
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


def build(config: ConfigDict, *, num_iterations: int | None = None) -> Experiment:
    """Build the experiment of a config.

    Every part is made, also those that only the end of a run needs, so that a value that is not
    accepted is refused here.

    Args:
        config: with the fields of `jitter_jax.config.default_config`.
        num_iterations: K while evaluating; that of the config if None.

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
    scheme = make_schemes(config, reconstructor, sources["train"], measure)[config.scheme.name]
    experiment = Experiment(
        config=config,
        operator=operator,
        reconstructor=reconstructor,
        loss=_raw_loss(scheme, measure, fresh_noise=config.data.fresh_noise),
        sources=sources,
        measure=jax.jit(measure, static_argnums=1),
        metrics=metrics,
        evaluators=make_evaluators(
            reconstructor,
            metrics,
            make_attack(config.evaluate.attack),
            num_draws=config.evaluate.num_draws,
            on_sphere=config.evaluate.on_sphere,
            energy_shares=attacks.kspace_energy if config.operator.name in MRI else None,
            num_iterations=num_iterations,
        ),
        threat=attacks.Threat(**config.evaluate.threat.to_dict()),
        skipped=tuple(skipped),
    )
    _check_examples(experiment)
    return experiment


def _plain(config: ConfigDict, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in without}


def _one_of(field: str, value: Any, choices: Any) -> Any:
    """Return `choices[value]`, or say what is accepted."""
    if value not in choices:
        raise ValueError(f"{field}={value!r} is not accepted: one of {list(choices)} is expected")
    return choices[value]


MRI: dict[str, Callable[[Array], operators.LinearOperator]] = {
    "cartesian_mri": operators.cartesian_mri,
    "cartesian_mri_repo": operators.cartesian_mri_repo,
}


def make_operator(config: ConfigDict) -> operators.LinearOperator | OperatorFactory:
    """Return the operator that `config.operator` describes.

    In magnetic resonance imaging every example has a mask, and its operator is made from it.
    """
    choices: dict[str, Callable[[], operators.LinearOperator | OperatorFactory]] = {
        "identity": operators.identity,
        "convolution": lambda: operators.convolution(
            operators.ricker(config.wavelet_points, config.wavelet_width)
        ),
        **{name: partial(_masked, make) for name, make in MRI.items()},
    }
    return _one_of("operator.name", config.name, choices)()


def _masked(make: Callable[[Array], operators.LinearOperator]) -> OperatorFactory:
    return lambda example: make(example["mask"])


def example_operator(config: ConfigDict) -> operators.LinearOperator:
    """Return the operator of a signal of `signal_type`; where it needs a mask, of a full one."""
    mask = jnp.ones(signal_type(config)["shape"][:2], bool)
    return operator_of(make_operator(config.operator), {"mask": mask})


def make_reconstructor(config: ConfigDict) -> unroll.Reconstructor:
    """Return the reconstructor that `config.network` and `config.unroll` describe."""
    signal = signal_type(config)
    parts = 2 if jnp.issubdtype(signal["dtype"], jnp.complexfloating) else 1
    methods = {"gradient": unroll.gradient_descent, "proximal": unroll.proximal_gradient}
    remats = {"keep_costly": keep_costly, "full": True, "none": False}
    return unroll.unrolled(
        _one_of("unroll.method", config.unroll.method, methods),
        make_network(config.network, out_channels=parts * signal["shape"][-1]),
        make_step_size(config.unroll.step_size),
        num_iterations=config.unroll.num_iterations,
        start=config.unroll.start,
        sees_measurement=config.unroll.sees_measurement,
        remat=_one_of("unroll.remat", config.unroll.remat, remats),
    )


def signal_type(config: ConfigDict) -> dict[str, Any]:
    """Return `shape` and `dtype` of a signal.

    `(2,)` for points, `(time, traces, 1)` for sections, `(height, width, 1)` complex for images.
    Signals of a user's own file may have another size; networks of sections and images fit any.
    """
    if config.data.kind in IMAGE_KINDS:
        return {"shape": (*config.data.images.shape, 1), "dtype": jnp.complex64}
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
    }
    return _one_of("network.name", config.name, choices)()


def make_step_size(config: ConfigDict) -> unroll.step_size.StepSize:
    """Return the step size that `config.unroll.step_size` describes."""
    choices: dict[str, Callable[[], unroll.step_size.StepSize]] = {
        "fixed": lambda: unroll.step_size.fixed(config.value),
        "exponential": lambda: unroll.step_size.exponential(config.init),
        "sigmoid": lambda: unroll.step_size.sigmoid(config.init, config.scale),
    }
    return _one_of("unroll.step_size.name", config.name, choices)()


SCHEMES = ("mse", "adversarial", "input_jitter", "sgd_jitter", "spgd_jitter")


def make_schemes(
    config: ConfigDict, reconstructor: unroll.Reconstructor, train: Source, measure: Measure
) -> dict[str, schemes.Loss]:
    """Return the training losses by name; all are made, to refuse bad values of any.

    Args:
        config: the whole config.
        reconstructor: the reconstruction H.
        train: training examples, from which a closed-form level of input jittering is computed.
        measure: measures them.
    """
    scheme = config.scheme
    _one_of("scheme.name", scheme.name, dict.fromkeys(SCHEMES))
    jittered = schemes.sgd_jitter(reconstructor, make_jitter(config))
    threat = attacks.Threat(**scheme.adversarial.threat.to_dict())
    attack = make_attack(scheme.adversarial.attack)
    level = input_level(scheme.input_jitter, train, measure, config.data.noise_std)
    return {
        "mse": schemes.mse(reconstructor),
        "adversarial": schemes.adversarial(reconstructor, threat, attack),
        "input_jitter": schemes.input_jitter(reconstructor, level),
        "sgd_jitter": jittered,
        "spgd_jitter": jittered,
    }


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
        if config.unroll.step_size.name != "fixed" or jitter.schedule:
            raise ValueError(
                "scheme.jitter.kind='matched' is a schedule for a fixed step: "
                "unroll.step_size.name='fixed' and an empty scheme.jitter.schedule are expected"
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


def _raw_loss(scheme: schemes.Loss, measure: Measure, *, fresh_noise: bool) -> RawLoss:
    def loss(params, raw, key):
        key_noise, key_scheme = jax.random.split(key)
        batch = measure(raw, "train", key_noise if fresh_noise else None)
        return scheme(params, batch, key_scheme)

    return loss


def _check_examples(experiment: Experiment) -> None:
    """Read one example of every set and follow its shape to the metrics."""
    needs_volumes = "volume" in (
        experiment.config.metrics.full_scale,
        experiment.config.metrics.per,
    )

    def follow(examples, name):
        x = experiment.measure(examples, name).signal[0]
        return [metric.function(x, x) for metric in experiment.metrics.values()]

    for name, source in experiment.sources.items():
        examples = next(evaluation_batches(source, 1))
        if needs_volumes and not {"volume", "volume_peak"} <= set(examples):
            raise ValueError(
                "metrics.full_scale='volume' and metrics.per='volume' are not accepted: the "
                f"examples of the {name} set are not slices of volumes whose largest value is known"
            )
        jax.eval_shape(partial(follow, name=name), examples)
