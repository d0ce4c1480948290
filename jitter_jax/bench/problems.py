"""The inverse problems that are timed, each with its network, and the config of a case."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jitter_jax.bench import flops
from jitter_jax.bench.cases import CASES, FRAMEWORKS, Plain, Sizes
from jitter_jax.config import default_config

REMATS = ("keep_costly", "full", "none")
PRECISIONS = ("default", "float32", "tf32", "bfloat16")

_ROBUST = ("train_adversarial", "train_input_jitter")
_JITTERED = ("train_sgd_jitter", "train_spgd_jitter")
_CERTIFIED = ("train_smt_adv", "train_smt_grad", "train_jacobian")
_TRAINED = ("pgd_step", "attack", "inference", "certificate", "certificate_loop")


class Problem(NamedTuple):
    """One inverse problem with its network.

    Attributes:
        settings: fields of the config that define the problem, by dotted name, so that a change of
            the defaults does not change what is timed.
        sizes: of a batch where none are asked for.
        shape_field: field of the config that holds height and width, if any does.
        forward_flops: floating-point operations of one reconstruction of the batch, from the case's
            config.
        cases: names in `CASES` of what can be timed.
        frameworks: names in `FRAMEWORKS` of what the problem is written in.
    """

    settings: Mapping[str, Any]
    sizes: Sizes
    shape_field: str | None
    forward_flops: Callable[[Plain], float]
    cases: tuple[str, ...] = ("train_mse", *_ROBUST, *_JITTERED, *_CERTIFIED, *_TRAINED)
    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)


_PICTURES = {
    "data.kind": "textures",
    "data.noise_std": 15 / 255,
    "data.normalisation": "none",
    "unroll.start": "adjoint",
    "unroll.sees_measurement": False,
    "optimizer.name": "adam",
}
_MRI = {
    "data.kind": "phantoms",
    "data.normalisation": "none",
    "data.sampling.mask": "gaussian",
    "data.sampling.acceleration": 4.0,
    "data.sampling.axis": 0,
    "operator.name": "cartesian_mri",
    "network.num_groups": 4,
    "network.activation": "relu",
    "unroll.method": "gradient",
    "unroll.start": "adjoint",
    "unroll.sees_measurement": False,
    "unroll.step_size.name": "exponential",
    "optimizer.name": "adam",
}

# A problem needs a row here, and one in `_torch_models.PEERS` if that is among its frameworks.
PROBLEMS = {
    "points": Problem(
        {
            "data.kind": "points",
            "data.noise_std": 0.1,
            "data.normalisation": "none",
            "operator.name": "identity",
            "network.name": "mlp",
            "network.depth": 3,
            "network.width": 32,
            "network.activation": "relu",
            "unroll.method": "gradient",
            "unroll.start": "measurement",
            "unroll.sees_measurement": False,
            "unroll.step_size.name": "exponential",
            "optimizer.name": "adam",
            "metrics.names": ("risk", "psnr"),
        },
        Sizes(batch=200, iterations=10),
        None,
        flops.points_flops,
        frameworks=("jax",),
    ),
    "seismic": Problem(
        {
            "data.kind": "generated",
            "operator.name": "convolution",
            "network.name": "seismic_cnn",
            "network.width": 32,
            "network.num_groups": 4,
            "network.activation": "relu",
            "unroll.method": "gradient",
            "unroll.start": "measurement",
            "unroll.sees_measurement": True,
            "unroll.step_size.name": "sigmoid",
            "unroll.step_size.scale": 0.1,
            "optimizer.name": "adam",
        },
        Sizes(352, 352, 2, 5),
        "data.sections.shape",
        flops.seismic_flops,
    ),
    "mri": Problem(
        {**_MRI, "network.name": "dncnn", "network.depth": 8, "network.width": 64},
        Sizes(256, 256, 1, 5),
        "data.images.shape",
        flops.dncnn_flops,
    ),
    "didn": Problem(
        {**_MRI, "network.name": "didn", "network.depth": 1, "network.width": 64},
        Sizes(256, 256, 1, 5),
        "data.images.shape",
        flops.didn_flops,
    ),
    "smug": Problem(
        {
            **_MRI,
            "data.normalisation": "zero_filled",
            "data.sampling.axis": 1,
            "data.coils.num": 4,
            "data.coils.maps": "simulated",
            "data.coils.vary": "fixed",
            "operator.name": "sense",
            "network.name": "didn",
            "network.depth": 1,
            "network.width": 16,
            "network.residual": True,
            "unroll.method": "half_quadratic",
            "unroll.regularisation.name": "fixed",
            "unroll.regularisation.value": 1.0,
            "unroll.solver.name": "conjugate_gradients",
            "unroll.solver.num_iterations": 6,
            "smoothing.sigma": 0.01,
            "smoothing.clamp": 0.0,
            "scheme.unrolled_stability.weight": 1.0,
            "scheme.unrolled_stability.target": "denoised_truth",
        },
        Sizes(128, 128, 1, 4),
        "data.images.shape",
        flops.didn_flops,
        cases=("train_mse", *_ROBUST, "train_smug", *_CERTIFIED, *_TRAINED),
        frameworks=("jax",),
    ),
    "ista_net_pp": Problem(
        {
            **_PICTURES,
            "operator.name": "block_sampling",
            "operator.block": 33,
            "operator.ratio": 0.1,
            "operator.train_ratios": (),
            "network.depth": 2,
            "network.width": 32,
            "unroll.method": "ista_net_pp",
        },
        Sizes(264, 264, 1, 20),
        "data.images.shape",
        flops.ista_net_pp_flops,
        cases=("train_mse", *_ROBUST, *_CERTIFIED, *_TRAINED),
        frameworks=("jax",),
    ),
    "dpdnn": Problem(
        {
            **_PICTURES,
            "operator.name": "identity",
            "network.name": "dpdnn_unet",
            "network.depth": 4,
            "network.width": 64,
            "unroll.method": "half_quadratic_gradient",
            "unroll.splitting.form": "denoising",
        },
        Sizes(256, 256, 1, 6),
        "data.images.shape",
        flops.dpdnn_flops,
        cases=("train_mse", *_ROBUST, *_CERTIFIED, *_TRAINED),
        frameworks=("jax",),
    ),
}


def case_sizes(problem: str, sizes: Sizes, case: str) -> Sizes:
    """Return the sizes of one case; None are those that it does not have."""
    own = CASES[case]
    defaults = PROBLEMS[problem].sizes._replace(
        samples=own.samples, chunk=own.chunk, steps=own.steps, devices=1
    )
    sizes = sizes.or_those_of(defaults)
    if sizes.samples is None:
        return sizes
    return sizes._replace(chunk=min(sizes.chunk or sizes.samples, sizes.samples))


def case_config(
    problem: str,
    sizes: Sizes,
    case: str,
    *,
    remat: str | None = None,
    precision: str = "default",
) -> Plain:
    """Return the config of one case, as plain values.

    Args:
        problem: name in `PROBLEMS`.
        sizes: what is asked for.
        case: name in `CASES`.
        remat: `unroll.remat`; the default if None.
        precision: `network.precision`.

    Raises:
        ValueError: the config knows no precisions, and one is asked for.
    """
    config = default_config()
    sizes, scheme = case_sizes(problem, sizes, case), CASES[case].scheme
    fields = {
        **PROBLEMS[problem].settings,
        "data.num_train": sizes.batch,
        "data.num_validation": 1,
        "data.num_test": 1,
        "data.out_of_distribution": (),
        "train.batch_size": sizes.batch,
        "unroll.num_iterations": sizes.iterations,
        "unroll.remat": remat or config.unroll.remat,
        "scheme.name": scheme,
        "scheme.jitter.kind": "relative",
        "scheme.jitter.sigma": 0.1,
        "scheme.jitter.schedule": (),
        "scheme.adversarial.threat.epsilon": 0.05,
        "scheme.adversarial.threat.unit": "relative",
        "scheme.adversarial.attack.name": "pgd",
        "scheme.adversarial.attack.first": "random",
    }
    if (shape_field := PROBLEMS[problem].shape_field) is not None:
        fields[shape_field] = (sizes.height, sizes.width)
    if sizes.samples is not None:
        part = f"scheme.{scheme}" if scheme in ("smt_adv", "smt_grad") else "smoothing"
        fields |= {f"{part}.num_samples": sizes.samples, f"{part}.chunk": sizes.chunk}
    if sizes.steps is not None:
        fields["scheme.adversarial.attack.num_steps"] = sizes.steps
    if scheme == "unrolled_stability":
        fields["smoothing.where"] = "step"
    if precision != "default":
        if "precision" not in config.network:
            raise ValueError(
                f"precision={precision!r} is not accepted: the config has no network.precision, "
                "so 'default' is expected"
            )
        fields["network.precision"] = precision
    config.update_from_flattened_dict(fields)
    return config.to_dict()


def case_flops(problem: str, case: str, config: Plain) -> float:
    """Return the floating-point operations of one call of a case."""
    return flops.passes(CASES[case], config) * PROBLEMS[problem].forward_flops(config)
