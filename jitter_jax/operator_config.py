"""The operator that a config describes, and what training draws anew of it."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jitter_jax import operators
from jitter_jax.data.files import as_float32, load_arrays
from jitter_jax.data.measure import OperatorFactory
from jitter_jax.keys import domain_key

Array = jax.Array
# (arrays of the training batch, key of the step) -> the arrays, some of them drawn anew
Redraw = Callable[[Mapping[str, Any], Array], dict[str, Any]]

MRI: dict[str, OperatorFactory] = {
    "cartesian_mri": lambda example: operators.cartesian_mri(example["mask"]),
    "cartesian_mri_repo": lambda example: operators.cartesian_mri_repo(example["mask"]),
    "sense": lambda example: operators.sense(example["mask"], example["maps"]),
}


@dataclasses.dataclass(frozen=True)
class _BlockSampling:
    """Makes the operator of a picture's size; its matrix is the same for all pictures."""

    matrix_name: str
    block: int
    ratio: float
    train_ratios: tuple[float, ...]
    seed: int

    leaf_axes = (None, 0)

    def __post_init__(self):
        for ratio in (self.ratio, *self.train_ratios):
            _checked_ratio(ratio)
        self.matrix  # noqa: B018 - refuses bad arguments now

    def __call__(self, example: Mapping[str, Array]) -> operators.LinearOperator:
        rows = example.get("rows", self.num_rows(self.ratio))
        return operators.block_sampling(self.matrix, shape=_shape(example), rows=rows)

    @cached_property
    def matrix(self) -> np.ndarray:
        """As many rows as the largest ratio needs; of a file all of its rows."""
        if self.matrix_name.endswith(".npz"):
            return self._read()
        makers = {"orthonormal": operators.orthonormal_rows, "gaussian": operators.gaussian_matrix}
        if self.matrix_name not in makers:
            raise ValueError(
                f"operator.matrix={self.matrix_name!r} is not accepted: one of {list(makers)}, or "
                "an .npz file, is expected"
            )
        rows = self.num_rows(max(self.ratio, *self.train_ratios, 0))
        return makers[self.matrix_name](rows, self.block**2, seed=self.seed)

    def _read(self) -> np.ndarray:
        matrix = load_arrays(self.matrix_name, keys=("phi",))["phi"]
        matrix = as_float32(self.matrix_name, "phi", matrix)
        most = max(self.ratio, *self.train_ratios, 0) * self.block**2
        # The public codes round a ratio down or to the nearest number of rows.
        if matrix.ndim != 2 or matrix.shape[1] != self.block**2 or len(matrix) + 1 <= most:
            raise ValueError(
                f"operator.matrix={self.matrix_name!r} is not accepted: its `phi` is of shape "
                f"{matrix.shape}, and (rows, {self.block**2}) with {math.floor(most)} rows for the "
                f"largest ratio is expected"
            )
        return matrix

    def num_rows(self, ratio: float) -> int:
        """Return how many rows a ratio measures, rounded up; at most those of a file."""
        rows = math.ceil(ratio * self.block**2 - 1e-9)
        return min(rows, len(self.matrix)) if self.matrix_name.endswith(".npz") else rows

    def redraw(self, examples: Mapping[str, Any], key: Array) -> dict[str, Any]:
        """Draw one of the training ratios for every example."""
        if not self.train_ratios:
            return dict(examples)
        rows = jnp.array([self.num_rows(ratio) for ratio in self.train_ratios])
        draw = lambda number: jax.random.choice(jax.random.fold_in(key, number), rows)
        return {**examples, "rows": jax.vmap(draw)(jnp.asarray(examples["index"]))}


@dataclasses.dataclass(frozen=True)
class _Inpainting:
    """Makes the operator that keeps a share of the pixels, the same ones of every test picture."""

    ratio: float
    seed: int

    def __post_init__(self):
        _checked_ratio(self.ratio)

    def __call__(self, example: Mapping[str, Array]) -> operators.LinearOperator:
        if "mask" in example:
            return operators.inpainting(example["mask"])
        key = domain_key(self.seed, "kept pixels")
        return operators.inpainting(jax.random.bernoulli(key, self.ratio, _shape(example)))

    def redraw(self, examples: Mapping[str, Any], key: Array) -> dict[str, Any]:
        """Draw the pixels that are kept of every example."""
        shape = examples["signal"].shape[1:3]
        draw = lambda number: jax.random.bernoulli(
            jax.random.fold_in(key, number), self.ratio, shape
        )
        return {**examples, "mask": jax.vmap(draw)(jnp.asarray(examples["index"]))}


def make_operator(config: ConfigDict) -> operators.LinearOperator | OperatorFactory:
    """Return the operator that `config.operator` describes.

    In magnetic resonance imaging every example has a mask and perhaps coil maps, and its operator
    is made from them. The operator of a picture is of the picture's size.

    Raises:
        ValueError: a field has a value that is not accepted; the message names it.
    """
    choices: dict[str, Callable[[], operators.LinearOperator | OperatorFactory]] = {
        "identity": operators.identity,
        "convolution": lambda: operators.convolution(
            operators.ricker(config.wavelet_points, config.wavelet_width)
        ),
        **{name: partial(MRI.__getitem__, name) for name in MRI},
        "block_sampling": lambda: _BlockSampling(
            config.matrix, config.block, config.ratio, tuple(config.train_ratios), config.seed
        ),
        "blur": lambda: _blurred(config, operators.blur),
        "super_resolution": lambda: _blurred(
            config, partial(operators.super_resolution, factor=config.factor)
        ),
        "inpainting": lambda: _Inpainting(config.ratio, config.seed),
    }
    if config.name not in choices:
        raise ValueError(
            f"operator.name={config.name!r} is not accepted: one of {list(choices)} is expected"
        )
    return choices[config.name]()


def start_matrix(config: ConfigDict) -> np.ndarray | None:
    """Return the initial estimate that comes with the file of a matrix, or None."""
    if config.name != "block_sampling" or not config.matrix.endswith(".npz"):
        return None
    arrays = load_arrays(config.matrix)
    return as_float32(config.matrix, "Qinit", arrays["Qinit"]) if "Qinit" in arrays else None


PICTURES = ("block_sampling", "blur", "super_resolution", "inpainting")


def make_redraw(operator: operators.LinearOperator | OperatorFactory) -> Redraw:
    """Return what a training step draws anew of an operator from `make_operator`."""
    return getattr(operator, "redraw", lambda examples, key: dict(examples))


def _blurred(config: ConfigDict, make: Callable[..., operators.LinearOperator]) -> OperatorFactory:
    kernel = operators.gaussian_kernel(config.kernel_size, config.kernel_std)
    return lambda example: make(kernel, shape=_shape(example), boundary=config.boundary)


def _shape(example: Mapping[str, Array]) -> tuple[int, int]:
    height, width = example["signal"].shape[:2]
    return height, width


def _checked_ratio(ratio: float) -> None:
    if not 0 < ratio <= 1:
        raise ValueError(
            f"operator.ratio={ratio} is not accepted: a ratio, also one to train on, is above 0 "
            "and at most 1"
        )
