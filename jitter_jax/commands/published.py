"""Published networks on the pictures of their papers: the work of `bin/published`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jitter_jax.attacks import Ball, Threat, pgd, reconstruction_error
from jitter_jax.commands.evaluate import write_json
from jitter_jax.commands.kept import Kept, Row
from jitter_jax.data.files import as_float32, load_arrays
from jitter_jax.data.pictures import Pictures
from jitter_jax.evaluate.figures import Line, lines_figure
from jitter_jax.evaluate.table import write_csv
from jitter_jax.files import checked_folder
from jitter_jax.metrics import psnr
from jitter_jax.operators import (
    LinearOperator,
    block_sampling,
    cartesian_mri,
    identity,
    orthonormal_rows,
)
from jitter_jax.unroll import load_published, real_signals

Array = jax.Array

PICTURES_FILE = "published_pictures.json"
# Sets by name, in the folder of the data.
SETS = {
    "Set11": "images/set11",
    "Set12": "images/set12",
    "BSD68": "images/bsd68",
    "brain": "mri/brain_magnitude.npz",
}
_BLOCK = 33


class Case(NamedTuple):
    """A published network, and what its authors' own code makes of the same pictures.

    Attributes:
        network: its name.
        weights: name of the file, without ending.
        test: of `SETS`.
        expected: mean PSNR in dB of the authors' code on the pictures that are at hand.
        published: what was published, on all pictures of the set; None if nothing was.
        ratio: of measured rows, or of k-space; 0 for denoisers.
        matrix: name of the file with the matrix, or with the masks; empty is an orthonormal matrix
            drawn from seed 0.
        sigma: of the noise of a denoiser.
    """

    network: str
    weights: str
    test: str
    expected: float
    published: float | None = None
    ratio: float = 0.0
    matrix: str = ""
    sigma: float = 0.0

    @property
    def setting(self) -> str:
        """What is measured, in words."""
        if not self.ratio:
            return f"noise {self.sigma:.3g}"
        return f"{self.ratio:.0%}" + (f" of {self.matrix}" if self.matrix else "")


CASES = (
    Case("ISTA-Net", "ista_net_cs10", "Set11", 26.28, 25.80, 0.10, "cs_matrix10"),
    Case("ISTA-Net", "ista_net_cs25", "Set11", 31.83, 31.53, 0.25, "cs_matrix25"),
    Case("ISTA-Net+", "ista_net_plus_cs01", "Set11", 17.86, 17.34, 0.01, "cs_matrix01"),
    Case("ISTA-Net+", "ista_net_plus_cs04", "Set11", 21.87, 21.31, 0.04, "cs_matrix04"),
    Case("ISTA-Net+", "ista_net_plus_cs10", "Set11", 26.49, 26.64, 0.10, "cs_matrix10"),
    Case("ISTA-Net+", "ista_net_plus_cs25", "Set11", 32.45, 32.57, 0.25, "cs_matrix25"),
    Case("ISTA-Net++", "ista_net_pp", "Set11", 28.44, 28.34, 0.1, "cs_matrix10"),
    Case("ISTA-Net++", "ista_net_pp", "Set11", 28.43, 28.34, 0.1),
    Case("ISTA-Net++", "ista_net_pp", "Set11", 32.54, 32.33, 0.2),
    Case("ISTA-Net++", "ista_net_pp", "Set11", 35.16, 34.86, 0.3),
    Case("ISTA-Net++", "ista_net_pp", "Set11", 37.24, 36.94, 0.4),
    Case("ISTA-Net++", "ista_net_pp", "Set11", 39.10, 38.73, 0.5),
    Case("ISTA-Net++ Ord", "ista_net_pp_ord100", "Set11", 27.91, 27.78, 0.1),
    Case("ISTA-Net++ Ord", "ista_net_pp_ord100", "Set11", 31.91, None, 0.2),
    Case("ISTA-Net++ Ord", "ista_net_pp_ord100", "Set11", 34.56, None, 0.3),
    Case("ISTA-Net++ Ord", "ista_net_pp_ord100", "Set11", 36.61, None, 0.4),
    Case("ISTA-Net++ Ord", "ista_net_pp_ord100", "Set11", 38.44, None, 0.5),
    Case("ISTA-Net+ MRI", "ista_net_plus_mri10", "brain", 34.61, None, 0.1, "mri_masks"),
    Case("ISTA-Net+ MRI", "ista_net_plus_mri20", "brain", 38.71, 38.73, 0.2, "mri_masks"),
    Case("ISTA-Net+ MRI", "ista_net_plus_mri40", "brain", 42.67, 42.52, 0.4, "mri_masks"),
    Case("DnCNN", "dncnn_sigma15", "Set12", 32.86, sigma=15 / 255),
    Case("DnCNN", "dncnn_sigma25", "Set12", 30.45, sigma=25 / 255),
    Case("DnCNN", "dncnn_sigma15", "BSD68", 31.44, 31.73, sigma=15 / 255),
    Case("DnCNN", "dncnn_sigma25", "BSD68", 28.92, 29.23, sigma=25 / 255),
    Case("SCICO DnCNN 6L", "scico_dncnn6L", "Set12", 31.74, sigma=0.06),
    Case("SCICO DnCNN 6M", "scico_dncnn6M", "Set12", 27.91, sigma=0.10),
    Case("SCICO DnCNN 6L", "scico_dncnn6L", "BSD68", 30.64, sigma=0.06),
    Case("SCICO DnCNN 6M", "scico_dncnn6M", "BSD68", 27.20, sigma=0.10),
)

# The published attack on "ISTA-Net++ Ord" at 10 %: steps, step on the raw gradient, and mean PSNR
# in dB over the 11 pictures of Set11 by the l2 radius, for a matrix that is not public.
ATTACK_STEPS, ATTACK_STEP_SIZE = 10, 800.0
# Of our own search, as a fraction of the radius. Steps of this network's gradient that are small
# beside the radius end before they have gone round the ball.
PGD_STEP_SIZE = 1.0
PUBLISHED_ATTACK = {
    0.1: 27.48,
    0.5: 26.21,
    1.0: 24.72,
    2.0: 22.32,
    3.0: 20.56,
    5.0: 18.04,
    7.0: 16.23,
    9.0: 14.83,
    12.0: 13.35,
    15.0: 12.36,
    30.0: 11.58,
}


def evaluate_published(
    weights: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    only: Sequence[str] = (),
    num_examples: int | None = None,
    progress: bool = True,
) -> list[Row]:
    """Reconstruct the test pictures by every published network whose files are at hand.

    PSNR of the estimate cut to [0, 1] (of DnCNN rounded to 8 bits as well), peak 1, mean over the
    pictures. Writes `published.csv` and `published.json`, and keeps what is known of each picture,
    so that the same call goes on where it was stopped.

    Args:
        weights: folder of the weights, matrices and masks.
        data: folder of the pictures.
        output: folder for the results.
        only: names of weight files to take; all if empty.
        num_examples: pictures of each set, from the first; all if None.
        progress: whether to show a progress bar.

    Returns:
        The rows, as written.

    Raises:
        ValueError: a name in `only` is unknown, or no file is at hand.
    """
    known = {case.weights for case in CASES}
    if unknown := sorted(set(only) - known):
        raise ValueError(f"only={unknown} is not accepted: of {sorted(known)} are expected")
    weights, data = Path(weights), Path(data)
    output = checked_folder(output)
    kept = Kept(output / PICTURES_FILE)
    rows: list[Row] = []
    for case in CASES:
        missing = [path for path in _files(case, weights, data) if not path.exists()]
        if (only and case.weights not in only) or missing:
            if missing:
                print(f"{case.network} on {case.test} is left out: no {missing[0]}")
            continue
        pictures = _pictures(data / SETS[case.test], num_examples)
        reconstruct = _reconstruction(case, weights)
        bar = tqdm(pictures, desc=f"{case.network}, {case.test}", disable=not progress, leave=False)
        values = [
            kept.rows(
                {"weights": case.weights, "setting": case.setting, "picture": name},
                partial(_quality_row, case, reconstruct, x),
            )[0]["psnr"]
            for name, x in bar
        ]
        rows.append(
            {
                "network": case.network,
                "setting": case.setting,
                "test": case.test,
                "num_pictures": len(values),
                "psnr": float(np.mean(values)),
                "authors_code": case.expected,
                "published": case.published,
            }
        )
        print(_line(rows[-1].values()), flush=True)
    if not rows:
        raise ValueError(f"weights={str(weights)!r}: none of the published files is there")
    write_json(output / "published.json", rows)
    write_csv(output / "published.csv", rows)
    print(f"\n{_table(rows)}")
    return rows


def attack_published(
    weights: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    epsilons: Sequence[float] = tuple(PUBLISHED_ATTACK),
    num_examples: int | None = None,
    progress: bool = True,
) -> list[Row]:
    """Attack "ISTA-Net++ Ord" at 10 %, as published and by our own search of as many steps.

    The l2 ball is around the padded picture, in signal space. The published attack takes steps of
    800 times the raw gradient of the mean squared error; ours takes normalised ones, as long as the
    radius, from where FGSM ends. Writes `published_attack.csv`, `.json` and `.png`.

    Args:
        weights: folder of the weights.
        data: folder of the pictures.
        output: folder for the results.
        epsilons: l2 radii.
        num_examples: pictures of Set11, from the first; all if None.
        progress: whether to show a progress bar.

    Returns:
        The rows, as written.
    """
    (case,) = (case for case in CASES if case.weights == "ista_net_pp_ord100" and case.ratio == 0.1)
    weights, output = Path(weights), checked_folder(output)
    for epsilon in epsilons:
        Threat(epsilon)  # refuses what is not a size
    kept = Kept(output / PICTURES_FILE)
    attacked = jax.jit(partial(_attacked, load_published(weights / f"{case.weights}.npz")))
    pictures = list(_pictures(Path(data) / SETS[case.test], num_examples))
    matrix = _matrix(case, weights)
    rows: list[Row] = []
    for epsilon in (0.0, *epsilons):
        bar = tqdm(pictures, desc=f"epsilon {epsilon:g}", disable=not progress, leave=False)
        found = [
            kept.rows(
                {
                    "attack": case.weights,
                    "epsilon": epsilon,
                    "picture": name,
                    "step_size": PGD_STEP_SIZE,
                },
                partial(_attack_row, attacked, matrix, x, epsilon),
            )[0]
            for name, x in bar
        ]
        mean = {name: float(np.mean([row[name] for row in found])) for name in found[0]}
        published = PUBLISHED_ATTACK.get(epsilon, case.published if epsilon == 0 else None)
        rows.append({"epsilon": epsilon, **mean, "published": published})
        print(_line(rows[-1].values()), flush=True)
    write_json(output / "published_attack.json", rows)
    write_csv(output / "published_attack.csv", rows)
    curves = [
        Line(
            name.replace("_", " "),
            [row["epsilon"] for row in rows],
            [row[name] for row in rows],
            [None] * len(rows),
        )
        for name in ("published_attack", "pgd", "published")
    ]
    lines_figure(
        {f"{case.network}, {case.setting}, {len(pictures)} pictures": curves},
        output / "published_attack.png",
        x_label="epsilon (l2)",
        y_label="PSNR (dB)",
    )
    print(f"\n{_table(rows)}")
    return rows


def _attack_row(
    attacked: Callable[..., dict[str, Array]], matrix: np.ndarray, x: Array, epsilon: float
) -> list[Row]:
    return [{name: float(value) for name, value in attacked(matrix, x, epsilon).items()}]


def _attacked(reconstructor: Any, matrix: Array, x: Array, epsilon: Array) -> dict[str, Array]:
    """Returns the PSNR under both attacks."""
    padded = jnp.pad(x, ((0, -x.shape[0] % _BLOCK), (0, -x.shape[1] % _BLOCK), (0, 0)))
    operator = block_sampling(matrix, shape=(padded.shape[0], padded.shape[1]))
    y = operator.forward(padded)
    params = reconstructor.init(jax.random.key(0), operator, y)
    reconstruct = partial(reconstructor.apply, params, operator)
    objective = reconstruction_error(reconstruct, operator, padded, y, space="signal")
    ball = Threat(epsilon, space="signal").ball(padded)
    zero = jnp.zeros_like(padded)
    ours, _ = pgd(ball, num_steps=ATTACK_STEPS, step_size=PGD_STEP_SIZE)(
        objective, zero, jax.random.key(0)
    )

    def quality(delta: Array) -> Array:
        estimate = reconstruct(y + operator.forward(delta))
        return psnr(jnp.clip(estimate[: x.shape[0], : x.shape[1]], 0, 1), x)

    return {
        "published_attack": quality(_published_attack(ball, objective, zero)),
        "pgd": quality(ours),
    }


def _published_attack(ball: Ball, objective: Callable[[Array], Array], start: Array) -> Array:
    def step(delta: Array, _: None) -> tuple[Array, None]:
        return ball.project(delta + ATTACK_STEP_SIZE * jax.grad(objective)(delta)), None

    return jax.lax.scan(step, start, length=ATTACK_STEPS)[0]


def _files(case: Case, weights: Path, data: Path) -> list[Path]:
    names = [case.weights, *([case.matrix] if case.matrix else [])]
    return [*(weights / f"{name}.npz" for name in names), data / SETS[case.test]]


def _pictures(path: Path, num_examples: int | None) -> Iterator[tuple[str, Array]]:
    """Give names and pictures; those of a folder may differ in size."""
    if path.suffix == ".npz":
        stack = Pictures(path)
        for number in range(len(stack))[:num_examples]:
            yield f"{path.stem} {number}", jnp.asarray(stack[number]["signal"])
    else:
        for file in sorted(path.iterdir())[:num_examples]:
            yield f"{path.name} {file.name}", jnp.asarray(Pictures(file)[0]["signal"])


def _matrix(case: Case, weights: Path) -> np.ndarray:
    if case.matrix:
        path = weights / f"{case.matrix}.npz"
        return as_float32(path, "phi", load_arrays(path, keys=("phi",))["phi"])
    # Rounded up as in the public code.
    return orthonormal_rows(int(np.ceil(case.ratio * _BLOCK**2)), _BLOCK**2, seed=0)


def _reconstruction(case: Case, weights: Path) -> Callable[[Array], Array]:
    """Returns what measures a picture and reconstructs it."""
    start: np.ndarray | None = None
    make: Callable[[tuple[int, int]], LinearOperator]
    if case.matrix == "mri_masks":
        masks = load_arrays(weights / "mri_masks.npz")
        mask = np.fft.fftshift(masks[f"mask_{case.ratio * 100:.0f}"]) > 0
        make = lambda shape: real_signals(cartesian_mri(mask))
    elif case.ratio:
        matrix = _matrix(case, weights)
        make = lambda shape: block_sampling(matrix, shape=shape)
        if case.matrix:
            start = load_arrays(weights / f"{case.matrix}.npz", keys=("Qinit",))["Qinit"]
    else:
        make = lambda shape: identity()
    reconstructor = load_published(weights / f"{case.weights}.npz", start_matrix=start)

    @jax.jit
    def reconstruct(x: Array, noise: Array) -> Array:
        operator = make((x.shape[0], x.shape[1]))
        y = operator.forward(x) + (noise if case.sigma else 0)
        return reconstructor.apply(reconstructor.init(jax.random.key(0), operator, y), operator, y)

    def of_picture(x: Array) -> Array:
        noise = case.sigma * np.random.default_rng(0).standard_normal(x.shape)
        return reconstruct(x, jnp.asarray(noise, jnp.float32))

    return of_picture


def _quality_row(case: Case, reconstruct: Callable[[Array], Array], x: Array) -> list[Row]:
    estimate = jnp.clip(reconstruct(x), 0, 1)
    if case.weights.startswith("dncnn"):
        estimate = jnp.round(255 * estimate) / 255
    return [{"psnr": float(psnr(estimate, x))}]


def _line(values: Any) -> str:
    cells = [
        "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
        for value in values
    ]
    return f"| {' | '.join(cells)} |"


def _table(rows: Sequence[Row]) -> str:
    heads = [name.replace("_", " ") for name in rows[0]]
    return "\n".join(
        [_line(heads), _line(["---"] * len(heads)), *(_line(row.values()) for row in rows)]
    )
