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
    """Of one batch, and of the unroll; None is the problem's own."""

    height: int | None = None
    width: int | None = None
    batch: int | None = None
    iterations: int | None = None

    def or_those_of(self, other: "Sizes") -> "Sizes":
        """Return these sizes, with another's in place of None."""
        pairs = zip(self, other, strict=True)
        return Sizes(*(theirs if own is None else own for own, theirs in pairs))


class Case(NamedTuple):
    """What is timed.

    Attributes:
        kind: `"train"`, `"pgd"` or `"inference"`.
        scheme: of the training step.
        passes: floating-point operations, in forward passes.
    """

    kind: str
    scheme: str
    passes: int


CASES = {
    "train_mse": Case("train", "mse", 3),
    "train_sgd_jitter": Case("train", "sgd_jitter", 3),
    "pgd_step": Case("pgd", "mse", 2),
    "inference": Case("inference", "mse", 1),
}
OVERHEAD_OF = ("train_mse", "train_sgd_jitter")
FRAMEWORKS = {"jax": "JAX", "torch": "PyTorch"}


class Work(NamedTuple):
    """One case, ready to be run.

    Attributes:
        run: does it once, and returns when it is done.
        parameters: number of learned parameters.
        compile_s: seconds of tracing and compiling; None where nothing is compiled.
    """

    run: Callable[[], Any]
    parameters: int
    compile_s: float | None = None


class Problem(NamedTuple):
    """One inverse problem with its network.

    Attributes:
        settings: fields of the config that define the problem, by dotted name, so that a change of
            the defaults does not change what is timed.
        sizes: of a batch where none are asked for.
        shape_field: field of the config that holds height and width.
        forward_flops: floating-point operations of the convolutions in one reconstruction of the
            batch, from the case's config.
    """

    settings: Mapping[str, Any]
    sizes: Sizes
    shape_field: str
    forward_flops: Callable[[Plain], float]


def _seismic_flops(config: Plain) -> float:
    hidden = config["network"]["width"]
    kernels = [(3, 2, hidden), (3, hidden, hidden), (3, hidden, hidden), (3, hidden, 1), (1, 1, 1)]
    return _flops(kernels, config["data"]["sections"]["shape"], config)


def _mri_flops(config: Plain) -> float:
    hidden, depth = config["network"]["width"], config["network"]["depth"]
    kernels = [(3, 2, hidden), *[(3, hidden, hidden)] * (depth - 2), (3, hidden, 2)]
    return _flops(kernels, config["data"]["images"]["shape"], config)


def _flops(kernels: Sequence[tuple[int, int, int]], shape: tuple[int, int], config: Plain) -> float:
    """Return the operations of convolutions `(size, inputs, outputs)` in all iterations."""
    pixels = config["train"]["batch_size"] * shape[0] * shape[1]
    flops = sum(2 * size**2 * inputs * outputs * pixels for size, inputs, outputs in kernels)
    return float(config["unroll"]["num_iterations"] * flops)


# A problem needs a row here, and one in `_torch_peer.PEERS`.
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
}


def case_config(problem: str, sizes: Sizes, scheme: str, remat: str | None = None) -> Plain:
    """Return the config of one case, as plain values."""
    config = default_config()
    sizes = sizes.or_those_of(PROBLEMS[problem].sizes)
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
