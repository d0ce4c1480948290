"""What is timed: problems, their sizes, and the work of a case.

Neither JAX nor PyTorch is imported here: each belongs in its own workers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jitter_jax.config import default_config

Plain = dict[str, Any]

# Of the attack's step, relative to the measurement and to the radius.
EPSILON, STEP_SIZE = 0.05, 0.125


class Sizes(NamedTuple):
    """Of one batch, of the unroll, and of the smoothing; None is the problem's own.

    Attributes:
        height: rows of a signal.
        width: columns of a signal.
        batch: signals in a batch.
        iterations: K.
        samples: noisy copies that a smoothed step averages over, or draws of a certificate.
        chunk: copies computed at once; 0 takes all.
    """

    height: int | None = None
    width: int | None = None
    batch: int | None = None
    iterations: int | None = None
    samples: int | None = None
    chunk: int | None = None

    def or_those_of(self, other: "Sizes") -> "Sizes":
        """Return these sizes, with another's in place of None, and None where that has none."""
        pairs = zip(self, other, strict=True)
        return Sizes(*(theirs if None in (own, theirs) else own for own, theirs in pairs))


class Case(NamedTuple):
    """What is timed.

    Attributes:
        kind: `"train"`, `"pgd"`, `"inference"`, `"certificate"`, or `"loop"`: a certificate by a
            loop in Python over the draws.
        scheme: of the training step.
        passes: floating-point operations, in forward passes; of a certificate those of each draw.
        draws: whether it takes `Sizes.samples`.
    """

    kind: str
    scheme: str
    passes: int
    draws: bool = False

    @property
    def certifies(self) -> bool:
        """Whether every draw is a reconstruction of its own."""
        return self.kind in ("certificate", "loop")


CASES = {
    "train_mse": Case("train", "mse", 3),
    "train_sgd_jitter": Case("train", "sgd_jitter", 3),
    "train_smug": Case("train", "unrolled_stability", 3, draws=True),
    "pgd_step": Case("pgd", "mse", 2),
    "inference": Case("inference", "mse", 1),
    "certificate": Case("certificate", "mse", 1, draws=True),
    "certificate_loop": Case("loop", "mse", 1, draws=True),
}
OVERHEAD_OF = ("train_mse", "train_sgd_jitter")
FRAMEWORKS = {"jax": "JAX", "torch": "PyTorch"}


class Work(NamedTuple):
    """One case, ready to be run.

    Attributes:
        run: does it once, and returns when it is done.
        parameters: number of learned parameters.
        compile_s: seconds of tracing and compiling; None where nothing is compiled.
        temp_bytes: memory that the compiled program takes beside its arguments and results; None
            where that is not known.
    """

    run: Callable[[], Any]
    parameters: int
    compile_s: float | None = None
    temp_bytes: int | None = None


class Problem(NamedTuple):
    """One inverse problem with its network.

    Attributes:
        settings: fields of the config that define the problem, by dotted name, so that a change of
            the defaults does not change what is timed.
        sizes: of a batch where none are asked for.
        shape_field: field of the config that holds height and width.
        forward_flops: floating-point operations of the convolutions in one reconstruction of the
            batch, from the case's config.
        cases: names in `CASES` of what can be timed.
        frameworks: names in `FRAMEWORKS` of what the problem is written in.
    """

    settings: Mapping[str, Any]
    sizes: Sizes
    shape_field: str
    forward_flops: Callable[[Plain], float]
    cases: tuple[str, ...] = ("train_mse", "train_sgd_jitter", "pgd_step", "inference")
    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)


def _seismic_flops(config: Plain) -> float:
    hidden = config["network"]["width"]
    kernels = [(3, 2, hidden), (3, hidden, hidden), (3, hidden, hidden), (3, hidden, 1), (1, 1, 1)]
    return _flops(kernels, config["data"]["sections"]["shape"], config)


def _mri_flops(config: Plain) -> float:
    hidden, depth = config["network"]["width"], config["network"]["depth"]
    kernels = [(3, 2, hidden), *[(3, hidden, hidden)] * (depth - 2), (3, hidden, 2)]
    return _flops(kernels, config["data"]["images"]["shape"], config)


def _smug_flops(config: Plain) -> float:
    w, blocks = config["network"]["width"], config["network"]["depth"]
    levels = (  # by the halvings of height and width, which are padded to a multiple of 8
        [(3, 2, w), (3, w // 4, 2)],
        [*[(3, w, w)] * 2, (1, blocks * w, w), *[*[(3, w, w)] * 5, (1, 2 * w, w)] * blocks],
        [(3, w, 2 * w), *[(3, 2 * w, 2 * w)] * 2, (1, 4 * w, 2 * w), (1, 2 * w, 4 * w)] * blocks,
        [(3, 2 * w, 4 * w), (3, 4 * w, 4 * w), (1, 4 * w, 8 * w)] * blocks,
    )
    height, width = (-(-side // 8) * 8 for side in config["data"]["images"]["shape"])
    return sum(
        _flops(kernels, (height >> halvings, width >> halvings), config)
        for halvings, kernels in enumerate(levels)
    )


def _ista_net_pp_flops(config: Plain) -> float:
    w, blocks = config["network"]["width"], config["network"]["depth"]
    kernels = [(3, 2, w), *[(3, w, w)] * (2 * blocks), (3, w, 1)]
    return _flops(kernels, config["data"]["images"]["shape"], config)


def _dpdnn_flops(config: Plain) -> float:
    w, levels = config["network"]["width"], config["network"]["depth"]
    sides = [config["data"]["images"]["shape"]]
    for _ in range(levels):
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    total = _flops([(3, w, 1)], sides[0], config) + _flops([(3, w, w)], sides[-1], config)
    for level in range(levels):
        first = (3, w if level else 1, w)
        of_level = [first, *[(3, w, w)] * 2, (1, 2 * w, w), *[(3, w, w)] * 4]
        total += _flops(of_level, sides[level], config)
        # Down, and up again, which is computed at the smaller size.
        total += _flops([(3, w, w)] * 2, sides[level + 1], config)
    return total


def _flops(kernels: Sequence[tuple[int, int, int]], shape: tuple[int, int], config: Plain) -> float:
    """Return the operations of convolutions `(size, inputs, outputs)` in all iterations."""
    pixels = config["train"]["batch_size"] * shape[0] * shape[1]
    flops = sum(2 * size**2 * inputs * outputs * pixels for size, inputs, outputs in kernels)
    evaluations = config["unroll"]["num_iterations"]
    if config["scheme"]["name"] == "unrolled_stability":  # of every copy, and of the truth once
        evaluations = config["smoothing"]["num_samples"] * evaluations + 1
    return float(evaluations * flops)


def _of_pictures(
    settings: Mapping[str, Any], sizes: Sizes, forward_flops: Callable[[Plain], float]
) -> Problem:
    common = {
        "data.kind": "textures",
        "data.noise_std": 15 / 255,
        "data.normalisation": "none",
        "unroll.start": "adjoint",
        "unroll.sees_measurement": False,
        "optimizer.name": "adam",
    }
    return Problem(
        {**common, **settings},
        sizes,
        "data.images.shape",
        forward_flops,
        cases=("train_mse", "pgd_step", "inference", "certificate", "certificate_loop"),
        frameworks=("jax",),
    )


# A problem needs a row here, and one in `_torch_peer.PEERS` if that is among its frameworks.
PROBLEMS = {
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
        _seismic_flops,
    ),
    "mri": Problem(
        {
            "data.kind": "phantoms",
            "data.normalisation": "none",
            "data.sampling.mask": "gaussian",
            "data.sampling.acceleration": 4.0,
            "data.sampling.axis": 0,
            "operator.name": "cartesian_mri",
            "network.name": "dncnn",
            "network.depth": 8,
            "network.width": 64,
            "network.num_groups": 4,
            "network.activation": "relu",
            "unroll.method": "gradient",
            "unroll.start": "adjoint",
            "unroll.sees_measurement": False,
            "unroll.step_size.name": "exponential",
            "optimizer.name": "adam",
        },
        Sizes(256, 256, 1, 5),
        "data.images.shape",
        _mri_flops,
    ),
    "smug": Problem(
        {
            "data.kind": "phantoms",
            "data.normalisation": "zero_filled",
            "data.sampling.mask": "gaussian",
            "data.sampling.acceleration": 4.0,
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
            "unroll.start": "adjoint",
            "unroll.sees_measurement": False,
            "unroll.regularisation.name": "fixed",
            "unroll.regularisation.value": 1.0,
            "unroll.solver.name": "conjugate_gradients",
            "unroll.solver.num_iterations": 6,
            "smoothing.sigma": 0.01,
            "smoothing.clamp": 0.0,
            "scheme.unrolled_stability.weight": 1.0,
            "scheme.unrolled_stability.target": "denoised_truth",
            "optimizer.name": "adam",
        },
        Sizes(128, 128, 1, 4, samples=10, chunk=0),
        "data.images.shape",
        _smug_flops,
        cases=("train_mse", "train_smug", "pgd_step", "inference"),
        frameworks=("jax",),
    ),
    "ista_net_pp": _of_pictures(
        {
            "operator.name": "block_sampling",
            "operator.block": 33,
            "operator.ratio": 0.1,
            "operator.train_ratios": (),
            "network.depth": 2,
            "network.width": 32,
            "unroll.method": "ista_net_pp",
        },
        Sizes(264, 264, 1, 20, samples=16, chunk=8),
        _ista_net_pp_flops,
    ),
    "dpdnn": _of_pictures(
        {
            "operator.name": "identity",
            "network.name": "dpdnn_unet",
            "network.depth": 4,
            "network.width": 64,
            "unroll.method": "half_quadratic_gradient",
            "unroll.splitting.form": "denoising",
        },
        Sizes(256, 256, 1, 6, samples=16, chunk=8),
        _dpdnn_flops,
    ),
}


def case_sizes(problem: str, sizes: Sizes, case: str) -> Sizes:
    """Return the sizes of one case; None are those that it does not have."""
    sizes = sizes.or_those_of(PROBLEMS[problem].sizes)
    if not CASES[case].draws:
        return sizes._replace(samples=None, chunk=None)
    assert sizes.samples is not None
    return sizes._replace(chunk=min(sizes.chunk or sizes.samples, sizes.samples))


def case_config(problem: str, sizes: Sizes, case: str, remat: str | None = None) -> Plain:
    """Return the config of one case, as plain values."""
    config = default_config()
    sizes, scheme = case_sizes(problem, sizes, case), CASES[case].scheme
    if sizes.samples is not None:
        config.smoothing.where = "none" if CASES[case].certifies else "step"
        config.smoothing.num_samples, config.smoothing.chunk = sizes.samples, sizes.chunk
    config.update_from_flattened_dict(
        {
            **PROBLEMS[problem].settings,
            PROBLEMS[problem].shape_field: (sizes.height, sizes.width),
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
        }
    )
    return config.to_dict()
