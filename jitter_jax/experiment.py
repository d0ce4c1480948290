"""A config becomes operators, a reconstructor, a training loss and data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jitter_jax import attacks, networks, operators, schemes, unroll
from jitter_jax.data import measure as measuring
from jitter_jax.data.pipeline import Source
from jitter_jax.data.sources import make_sources
from jitter_jax.metrics import Metric, make_metrics
from jitter_jax.networks.layers import activation, keep_costly
from jitter_jax.train.step import Loss as RawLoss

Array = jax.Array
Config = Any  # an ml_collections.ConfigDict


class Experiment(NamedTuple):
    """Everything that a config describes; the parts are the library's own functions.

    Attributes:
        config: the config, resolved.
        operator: the operator A, the same for all signals.
        reconstructor: the unrolled reconstruction H.
        scheme: the training loss of a batch of measured signals.
        loss: the training loss of a raw batch from the input pipeline, which it measures first.
        sources: data sets by name: train, validation, test and the out-of-distribution ones.
        measure: `(examples, set name) -> Measured`, a batch of raw examples measured as the
            named set is; out-of-distribution sets get the noise of the test set, so that rows of
            a table differ by the signal alone.
        metrics: what is measured of an estimate, by name.
    """

    config: Config
    operator: operators.LinearOperator
    reconstructor: unroll.Reconstructor
    scheme: schemes.Loss
    loss: RawLoss
    sources: dict[str, Source]
    measure: Callable[[Mapping[str, Any], str], measuring.Measured]
    metrics: dict[str, Metric]


def build(config: Config) -> Experiment:
    """Build the experiment of a config.

    Args:
        config: as `configs/seismic.py` returns, every field present.

    Raises:
        ValueError: a field has a value that is not accepted; the message names it.
        FileNotFoundError: a data file is missing.
    """
    operator = make_operator(config.operator)
    metrics = make_metrics(**config.metrics.to_dict())
    attacks.Threat(**config.evaluate.threat.to_dict())
    make_attack(config.evaluate.attack, where="evaluate")  # refuses now what would stop a run later
    reconstructor = make_reconstructor(config.network, config.unroll, config.scheme.name)
    scheme = make_scheme(config.scheme, config.unroll.num_iterations, reconstructor)
    sources = make_sources(**_plain(config.data, without=_MEASURING))
    measure = _make_measure(config.data, operator)
    return Experiment(
        config=config,
        operator=operator,
        reconstructor=reconstructor,
        scheme=scheme,
        loss=_raw_loss(scheme, operator, measure, fresh_noise=config.data.fresh_noise),
        sources=sources,
        measure=jax.jit(measure, static_argnums=1),
        metrics=metrics,
    )


_MEASURING = ("noise_std", "fresh_noise", "normalisation")


def _plain(config: Config, without: tuple[str, ...] = ()) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in without}


def make_operator(config: Config) -> operators.LinearOperator:
    """Return the operator that `config.operator` describes."""
    if config.name == "identity":
        return operators.identity()
    if config.name == "convolution":
        return operators.convolution(operators.ricker(config.wavelet_points, config.wavelet_width))
    raise ValueError(
        f"operator.name={config.name!r} is not accepted: 'identity' or 'convolution' is expected"
    )


_METHODS = {"gradient": unroll.gradient_descent, "proximal": unroll.proximal_gradient}


def make_reconstructor(network: Config, config: Config, scheme: str) -> unroll.Reconstructor:
    """Return the reconstructor of `config.network` and `config.unroll`.

    The scheme `"spgd_jitter"` is SGD jittering of the proximal unroll, whatever
    `config.unroll.method` says.
    """
    method = "proximal" if scheme == "spgd_jitter" else config.method
    if method not in _METHODS:
        raise ValueError(
            f"unroll.method={method!r} is not accepted: one of {sorted(_METHODS)} is expected"
        )
    return unroll.unrolled(
        _METHODS[method],
        make_network(network),
        make_step_size(config.step_size),
        num_iterations=config.num_iterations,
        start=config.start,
        sees_measurement=config.sees_measurement,
        remat=make_remat(config.remat),
    )


def make_remat(name: str) -> unroll.Remat:
    """Return what `config.unroll.remat` names."""
    choices = {"keep_costly": keep_costly, "full": True, "none": False}
    if name not in choices:
        raise ValueError(f"unroll.remat={name!r} is not accepted: one of {sorted(choices)}")
    return choices[name]


def make_network(config: Config) -> unroll.Network:
    """Return the Linen module that `config.network` describes."""
    act = activation(config.activation)
    if config.name == "mlp":
        return networks.MLP(config.depth, config.width, config.out_channels, activation=act)
    if config.name == "seismic_cnn":
        return networks.SeismicCNN(config.width, config.num_groups, activation=act)
    if config.name == "dncnn":
        return networks.DnCNN(
            config.depth, config.width, config.num_groups, config.out_channels, activation=act
        )
    raise ValueError(
        f"network.name={config.name!r} is not accepted: 'mlp', 'seismic_cnn' or 'dncnn' is expected"
    )


def make_step_size(config: Config) -> unroll.step_size.StepSize:
    """Return the step size that `config.unroll.step_size` describes."""
    if config.name == "fixed":
        return unroll.step_size.fixed(config.value)
    if config.name == "exponential":
        return unroll.step_size.exponential(config.init)
    if config.name == "sigmoid":
        return unroll.step_size.sigmoid(config.init, config.scale)
    raise ValueError(
        f"unroll.step_size.name={config.name!r} is not accepted: "
        "'fixed', 'exponential' or 'sigmoid' is expected"
    )


SCHEMES = ("mse", "adversarial", "input_jitter", "sgd_jitter", "spgd_jitter")


def make_scheme(
    config: Config, num_iterations: int, reconstructor: unroll.Reconstructor
) -> schemes.Loss:
    """Return the training loss that `config.scheme` describes."""
    if config.name == "mse":
        return schemes.mse(reconstructor)
    if config.name == "adversarial":
        threat = attacks.Threat(**config.adversarial.threat.to_dict())
        return schemes.adversarial(
            reconstructor, threat, make_attack(config.adversarial.attack, where="scheme")
        )
    if config.name == "input_jitter":
        return schemes.input_jitter(reconstructor, input_level(config.input_jitter))
    if config.name in ("sgd_jitter", "spgd_jitter"):
        return schemes.sgd_jitter(reconstructor, make_jitter(config.jitter, num_iterations))
    raise ValueError(f"scheme.name={config.name!r} is not accepted: one of {SCHEMES} is expected")


def input_level(config: Config) -> float:
    """Return the standard deviation of input jittering: given, or by the closed form."""
    if config.level == "fixed":
        return config.sigma
    if config.level == "krainovic":
        return schemes.krainovic_level(**config.krainovic.to_dict())
    raise ValueError(
        f"scheme.input_jitter.level={config.level!r} is not accepted: "
        "'fixed' or 'krainovic' is expected"
    )


def make_jitter(config: Config, num_iterations: int) -> unroll.Jitter:
    """Return the jitter that `config.scheme.jitter` describes."""
    if config.kind == "matched":
        schedule = unroll.jitter.matched_jitter(config.sigma, config.step_size, num_iterations)
        return unroll.jitter.unit_norm(schedule)
    level = np.asarray(config.schedule or config.sigma, np.float32)
    if level.shape not in ((), (num_iterations,)):
        raise ValueError(
            f"scheme.jitter.schedule has {level.size} levels, but unroll.num_iterations is "
            f"{num_iterations}"
        )
    kinds = {
        "absolute": unroll.jitter.absolute,
        "relative": unroll.jitter.relative,
        "unit_norm": unroll.jitter.unit_norm,
        "repo": unroll.jitter.repo,
    }
    if config.kind not in kinds:
        raise ValueError(
            f"scheme.jitter.kind={config.kind!r} is not accepted: "
            f"one of {sorted([*kinds, 'matched'])} is expected"
        )
    return kinds[config.kind](level)


def make_attack(config: Config, where: str) -> Callable[[attacks.Ball], attacks.Attack]:
    """Return the search that an attack config describes, to be made from a ball."""
    if config.name == "fgsm":
        return attacks.fgsm
    if config.name == "pgd":
        options = _plain(config, without=("name",))
        options["step_size"] = options["step_size"] or None
        attacks.pgd(attacks.Ball(jnp.float32(0), "l2"), **options)  # refuses bad options now
        return lambda ball: attacks.pgd(ball, **options)
    raise ValueError(f"{where}: attack.name={config.name!r}: 'fgsm' or 'pgd' is expected")


# Measuring


def _make_measure(config: Config, operator: operators.LinearOperator):
    if not config.noise_std >= 0:
        raise ValueError(f"data.noise_std must not be negative, got {config.noise_std}")
    root = jax.random.key(config.seed)

    def measure(
        examples: Mapping[str, Any], name: str, step_key: Array | None = None
    ) -> measuring.Measured:
        part = _NOISE_OF.get(name, _NOISE_OF["test"])
        base = jax.random.fold_in(root, part)
        if step_key is not None:
            base = step_key

        def one(example, index):
            signal = jnp.asarray(example["signal"])
            if "measurement" in example:
                y = jnp.asarray(example["measurement"])
                return measuring.normalise(signal, y, config.normalisation)
            return measuring.measure(
                operator,
                signal,
                jax.random.fold_in(base, index),
                noise_std=config.noise_std,
                normalisation=config.normalisation,
            )

        if "signal" not in examples:
            raise ValueError(
                f"the {name} set has measurements only: to train and to test, a truth under the "
                "key 'signal' is needed; bin/reconstruct takes measurements alone"
            )
        data = {key: examples[key] for key in ("signal", "measurement") if key in examples}
        return jax.vmap(one)(data, jnp.asarray(examples["index"]))

    return measure


_NOISE_OF = {"train": 0, "validation": 1, "test": 2}


def _raw_loss(scheme, operator, measure, *, fresh_noise: bool) -> RawLoss:
    def loss(params, raw, key):
        key_noise, key_scheme = jax.random.split(key)
        measured = measure(raw, "train", key_noise if fresh_noise else None)
        batch = schemes.Batch(
            measured.signal, measured.measurement, operator, jnp.asarray(raw["index"])
        )
        return scheme(params, batch, key_scheme)

    return loss
