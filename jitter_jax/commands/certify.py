"""Certify trained reconstructors: the work of `bin/certify`."""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jitter_jax import certify
from jitter_jax import experiment as experiments
from jitter_jax.attacks import Threat, expectation, perturbed, reconstruction_error
from jitter_jax.commands.attack import checked_folder
from jitter_jax.commands.evaluate import attack_definition, list_skipped, write_json
from jitter_jax.data.part import Part
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.data.sources import PICTURE_KINDS
from jitter_jax.evaluate.figures import (
    Line,
    Panel,
    largest,
    lines_figure,
    panels_figure,
    visible,
    visible_title,
)
from jitter_jax.evaluate.table import spread, write_csv
from jitter_jax.experiment import Experiment
from jitter_jax.keys import domain_key, subkey
from jitter_jax.metrics import mse
from jitter_jax.operators import LinearOperator

Array = jax.Array
Params = Any
Runs = Mapping[str, tuple[Experiment, Params]]
Budgets = dict[tuple[float, float, int], certify.Budget | None]

CERTIFICATES = ("loss", "pixels", "centre")
# The columns of the table, with their headings.
COLUMNS = {
    "psnr": "clean",
    "attacked_psnr": "attacked",
    "smoothed_psnr": "smoothed",
    "smoothed_attacked_psnr": "smoothed, attacked",
    "certified_psnr": "certified",
    "discrepancy": "discrepancy",
    "certified_discrepancy": "certified discrepancy",
    "pixel_width": "width of a pixel",
    "centre_rms": "centre moves by (RMS)",
}
DEFINITIONS = {
    "psnr": "PSNR in dB of f(y), peak 1",
    "attacked_psnr": "PSNR of f(y + A xi), with the xi that the attack finds against f",
    "smoothed_psnr": "PSNR of the draw of median error among f(y + A delta_s)",
    "smoothed_attacked_psnr": "the same of f(y + A xi + A delta_s)",
    "certified_psnr": "lower bound, of the stated confidence, of the median PSNR of "
    "f(y + A xi + A delta) under every attack within epsilon",
    "discrepancy": "median of mean |f(y + A delta_s) - f(y)|^2",
    "certified_discrepancy": "upper bound, of the stated confidence, of the median of "
    "mean |f(y + A xi + A delta) - f(y)|^2 under every attack within epsilon",
    "pixel_width": "mean over the pixels of the width between the lower and the upper image that "
    "hold the pixel-wise median of f(y + A xi + A delta) under every attack within epsilon",
    "centre_rms": "root mean square, over the pixels, by which the centre-smoothed reconstruction "
    "can move under any attack within epsilon; missing where it abstained",
    "spread": "standard deviation over the signals",
}


class Plan(NamedTuple):
    """What is certified.

    Attributes:
        sigmas: standard deviations of the noise, in the unit of the signals.
        epsilons: l2 radii of threats in signal space, in the same unit.
        samples: numbers of draws.
        confidence: of each certificate.
        certificates: of `CERTIFICATES`: `"loss"` bounds discrepancy and error.
        simultaneous: one confidence holds for all signals, and all pixels, at once.
        attack_draws: draws of the noise that an attack averages over; 0 attacks the bare network.
        chunk: draws at once.
    """

    sigmas: tuple[float, ...]
    epsilons: tuple[float, ...]
    samples: tuple[int, ...] = (1000,)
    confidence: float = 0.99
    certificates: tuple[str, ...] = ("loss",)
    simultaneous: bool = False
    attack_draws: int = 0
    chunk: int = 32


def certify_runs(
    runs: Runs,
    output: str | Path,
    plan: Plan,
    *,
    num_examples: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Certify reconstructors on test signals, side by side.

    Writes `certify.json`, `certify.csv`, `certify.png` (the first signal) and, of several sigmas,
    `curves.png`.

    Args:
        runs: experiments that measure the same signals, with their parameters, by name.
        output: folder for the results.
        plan: what is certified.
        num_examples: signals of the test set, from its first; all if None.
        seed: of noise and attacks.
        progress: whether to show a progress bar.

    Returns:
        The report, as written to `certify.json`.

    Raises:
        ValueError: nothing can be certified as planned, signals are not in the range that they are
            declared to have, or an argument is not accepted.
    """
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples={num_examples} is not accepted: at least 1 is expected")
    first, _ = next(iter(runs.values()))
    count = min(len(first.sources["test"]), num_examples or len(first.sources["test"]))
    pixel_range = (0.0, 1.0) if first.config.data.kind in PICTURE_KINDS else None
    budgets = plan_budgets(plan, count, pixel_range)
    output = checked_folder(output)
    rows: list[dict[str, Any]] = []
    pictures: list[list[Panel]] = []
    for name, (experiment, params) in runs.items():
        run = _Run(experiment, params, plan, seed)
        drawn = run.draw(count, budgets, name=name, progress=progress)
        found = [
            {"run": name, "scheme": experiment.config.scheme.name, **row}
            for row in run.rows(drawn, budgets)
        ]
        print(f"\n{format_rows(found)}")
        list_skipped(experiment)
        rows += found
        pictures.append(run.panels(budgets))
    output.mkdir(parents=True, exist_ok=True)
    report = {"rows": rows, "definitions": definitions(first, plan, count, seed)}
    write_json(output / "certify.json", report)
    plain = [{key: value for key, value in row.items() if key != "values"} for row in rows]
    write_csv(output / "certify.csv", plain)
    panels_figure(pictures, output / "certify.png", row_labels=list(runs))
    if len(plan.sigmas) > 1:
        curves_figure(rows, output / "curves.png")
    return report


def plan_budgets(plan: Plan, num_signals: int, pixel_range: tuple[float, float] | None) -> Budgets:
    """Return the budget of every sigma, epsilon and number of samples; None if it is infeasible.

    Args:
        plan: what is certified.
        num_signals: how many signals share a confidence, where the plan wants that.
        pixel_range: of the signals, or None.

    Raises:
        ValueError: an argument is out of range, or no combination can be certified; the message
            says how many samples the first would need.
    """
    for name in plan.certificates:
        if name not in CERTIFICATES:
            raise ValueError(
                f"certificate={name!r} is not accepted: of {list(CERTIFICATES)} are expected"
            )
    confidence = plan.confidence
    if plan.simultaneous:
        confidence = certify.confidence_each(confidence, num_signals)
    budgets: Budgets = {}
    refused: certify.InfeasibleError | None = None
    for sigma, epsilon, samples in itertools.product(plan.sigmas, plan.epsilons, plan.samples):
        try:
            budgets[sigma, epsilon, samples] = certify.Budget(
                epsilon,
                sigma,
                num_samples=samples,
                confidence=confidence,
                pixel_range=pixel_range,
            )
        except certify.InfeasibleError as error:
            budgets[sigma, epsilon, samples] = None
            refused = refused or error
    if refused is not None and not any(budgets.values()):
        raise refused
    return budgets


def first_certified(budgets: Budgets) -> certify.Budget:
    """Return the first budget that is not infeasible."""
    return next(budget for budget in budgets.values() if budget is not None)


class _Drawn(NamedTuple):
    """What was drawn of the signals of a test set.

    Attributes:
        clean: error of each reconstruction, `(signals,)`.
        attacked: of each under attack, by epsilon and sigma, `(signals,)`.
        losses: of each draw, by sigma, `(signals, S, 2)`: its error, and its discrepancy.
        attacked_losses: errors of each draw under attack, by epsilon and sigma, `(signals, S)`.
        seconds: of the draws of the last signal, by sigma.
    """

    clean: np.ndarray
    attacked: dict[tuple[float, float], np.ndarray]
    losses: dict[float, np.ndarray]
    attacked_losses: dict[tuple[float, float], np.ndarray]
    seconds: dict[float, float]


class _Run:
    """One reconstructor; each of its programs compiles once for all signals and sigmas."""

    def __init__(self, experiment: Experiment, params: Params, plan: Plan, seed: int):
        self._experiment, self._params, self._plan = experiment, params, plan
        self._root, self._frozen = (domain_key(seed, use) for use in ("certify", "frozen"))
        self._search = experiments.make_attack(experiment.config.evaluate.attack)
        self._estimate = jax.jit(lambda operator, y: self._f(operator)(y))
        self._losses = jax.jit(self._losses_of)
        self._attack = jax.jit(self._attack_of)
        self._one_draw = jax.jit(
            lambda operator, y, sigma, key, number: certify.draw(
                self._f(operator), operator, y, sigma=sigma, key=key, number=number
            )
        )

    def _f(self, operator: LinearOperator) -> certify.Reconstruction:
        return certify.freeze(
            self._experiment.reconstructor, self._params, operator, key=self._frozen
        )

    def _losses_of(self, operator: LinearOperator, x: Array, y: Array, sigma: Array, key: Array):
        f = self._f(operator)
        reference = f(y)
        return certify.statistics(
            f,
            operator,
            y,
            sigma=sigma,
            key=key,
            statistic=lambda z: jnp.stack([mse(z, x), mse(z, reference)]),
            num_samples=max(self._plan.samples),
            chunk=self._plan.chunk,
        )

    def _attack_of(
        self,
        operator: LinearOperator,
        x: Array,
        y: Array,
        threat: Threat,
        sigma: Array,
        key: Array,
    ) -> Array:
        f = self._f(operator)

        def objective_of(key):
            noisy = lambda y: certify.draw(f, operator, y, sigma=sigma, key=key, number=0)
            target = noisy if self._plan.attack_draws else f
            return reconstruction_error(target, operator, x, y, space="signal")

        objective = expectation(
            objective_of, key=subkey(key, "noise"), num_draws=max(self._plan.attack_draws, 1)
        )
        search = self._search(threat.ball(x))
        delta, _ = search(objective, jnp.zeros_like(x), subkey(key, "search"))
        return perturbed(operator, y, delta, "signal")

    def _signals(self, count: int) -> Iterator[tuple[LinearOperator, Array, Array, Array]]:
        """Give operator, truth, measurement and key of the first signals."""
        source = Part(self._experiment.sources["test"], 0, count)
        for number, examples in enumerate(evaluation_batches(source, 1)):
            batch = self._experiment.measure(examples, "test")
            key = jax.random.fold_in(self._root, number)
            yield batch.operator_of(0), batch.signal[0], batch.measurement[0], key

    def draw(self, count: int, budgets: Budgets, *, name: str, progress: bool) -> _Drawn:
        """Draw what the losses of the first signals need."""
        plan = self._plan
        budget = first_certified(budgets)
        pairs = list(itertools.product(plan.epsilons, plan.sigmas))
        drawn = _Drawn(
            np.zeros(count),
            {pair: np.zeros(count) for pair in pairs},
            {sigma: np.zeros((count, max(plan.samples), 2)) for sigma in plan.sigmas},
            {pair: np.zeros((count, max(plan.samples))) for pair in pairs},
            {},
        )
        signals = tqdm(
            self._signals(count), total=count, desc=name, disable=not progress, leave=False
        )
        for number, (operator, x, y, key) in enumerate(signals):
            budget.check_range(x)
            drawn.clean[number] = mse(self._estimate(operator, y), x)
            for sigma in plan.sigmas:
                started = time.perf_counter()
                losses = self._losses(operator, x, y, sigma, subkey(key, "clean"))
                drawn.losses[sigma][number] = losses
                drawn.seconds[sigma] = time.perf_counter() - started
            for epsilon, sigma in pairs:
                threat = Threat(epsilon, space="signal")
                seen = self._attack(operator, x, y, threat, sigma, subkey(key, "attack"))
                drawn.attacked[epsilon, sigma][number] = mse(self._estimate(operator, seen), x)
                losses = self._losses(operator, x, seen, sigma, subkey(key, "attacked"))
                drawn.attacked_losses[epsilon, sigma][number] = losses[:, 0]
        return drawn

    def rows(self, drawn: _Drawn, budgets: Budgets) -> Iterator[dict[str, Any]]:
        """Give the table's rows."""
        for (sigma, epsilon, samples), budget in budgets.items():
            errors, discrepancies = np.moveaxis(drawn.losses[sigma][:, :samples], 2, 0)
            attacked = drawn.attacked_losses[epsilon, sigma][:, :samples]
            values = {
                "psnr": _psnr(drawn.clean),
                "attacked_psnr": _psnr(drawn.attacked[epsilon, sigma]),
                "smoothed_psnr": _psnr(_median(errors)),
                "smoothed_attacked_psnr": _psnr(_median(attacked)),
                "discrepancy": _median(discrepancies),
            }
            if budget is not None:
                rank = budget.rank()
                values["certified_psnr"] = _psnr(np.sort(errors)[:, rank - 1])
                values["certified_discrepancy"] = np.sort(discrepancies)[:, rank - 1]
                values |= self._whole_images(len(errors), budget)
            yield {
                "sigma": sigma,
                "epsilon": epsilon,
                "num_samples": samples,
                "rank": None if budget is None else budget.rank(),
                "seconds": drawn.seconds[sigma],
                "num_signals": len(errors),
                "metrics": {
                    name: {"mean": _finite(of_each, np.mean), "std": _finite(of_each, np.std)}
                    for name, of_each in values.items()
                },
                "values": {
                    name: [float(v) if np.isfinite(v) else None for v in of_each]
                    for name, of_each in values.items()
                },
            }

    def _whole_images(self, count: int, budget: certify.Budget) -> dict[str, np.ndarray]:
        """Return what the certificates of whole images say of the first signals."""
        plan, found = self._plan, {}
        if "pixels" in plan.certificates:
            pixels = self._pixels(budget)
            found["pixel_width"] = np.array(
                [
                    jnp.mean(jnp.abs(images.upper - images.lower))
                    for operator, _, y, key in self._signals(count)
                    for images in [pixels(operator, y, subkey(key, "pixels"))]
                ]
            )
        if "centre" in plan.certificates:
            centre = jax.jit(
                lambda operator, y, key: certify.certified_centre(
                    self._f(operator), operator, y, budget=budget, key=key, chunk=plan.chunk
                )
            )
            found["centre_rms"] = np.array(
                [
                    centre(operator, y, subkey(key, "centre")).bound / np.sqrt(x.size)
                    for operator, x, y, key in self._signals(count)
                ]
            )
        return found

    def _pixels(self, budget: certify.Budget) -> Callable[..., certify.PixelCertificate]:
        return jax.jit(
            lambda operator, y, key: certify.certified_pixels(
                self._f(operator),
                operator,
                y,
                budget=budget,
                key=key,
                simultaneous=self._plan.simultaneous,
                chunk=self._plan.chunk,
            )
        )

    def panels(self, budgets: Budgets) -> list[Panel]:
        """Return pictures of the first signal, at the first budget that certifies."""
        budget = first_certified(budgets)
        operator, x, y, key = next(self._signals(1))
        seen = np.asarray(visible(operator, y))
        estimate = self._estimate(operator, y)
        positive = self._experiment.config.data.kind in PICTURE_KINDS
        truth = np.asarray(x)
        limit = largest(truth)
        panels = [
            Panel(visible_title(seen, y), seen, largest(seen), positive),
            Panel("truth", truth, limit, positive),
            Panel(
                f"estimate, {_psnr(mse(estimate, x)):.1f} dB", np.asarray(estimate), limit, positive
            ),
        ]
        certificate = jax.jit(
            lambda operator, x, y, key: certify.certified_error(
                self._f(operator), operator, y, x, budget=budget, key=key, chunk=self._plan.chunk
            )
        )(operator, x, y, subkey(key, "clean"))
        for what, loss, image in (
            ("median draw", certificate.median, certificate.median_estimate),
            ("draw of the bound", certificate.bound, certificate.estimate),
        ):
            image = np.asarray(image)
            panels.append(Panel(f"{what}, {_psnr(loss):.1f} dB", image, limit, positive))
        if "pixels" in self._plan.certificates:
            images = self._pixels(budget)(operator, y, subkey(key, "pixels"))
            lower, upper = np.asarray(images.lower), np.asarray(images.upper)
            width = np.abs(upper - lower)
            panels += [
                Panel("lower", lower, limit, positive),
                Panel("upper", upper, limit, positive),
                Panel(f"width, mean {width.mean():.3f}", width, largest(width), True),
            ]
        return panels


def curves_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw certified discrepancy and PSNR against sigma, a curve a run and epsilon."""
    plots: dict[str, list[Line]] = {}
    most = max(row["num_samples"] for row in rows)
    chosen = [row for row in rows if row["num_samples"] == most]
    for column in ("certified_discrepancy", "certified_psnr", "smoothed_attacked_psnr"):
        lines: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
        for row in chosen:
            lines.setdefault((row["run"], row["epsilon"]), []).append(row)
        plots[COLUMNS[column]] = [
            Line(
                f"{run}, epsilon {epsilon:g}",
                [row["sigma"] for row in of_line],
                [row["metrics"].get(column, {}).get("mean") for row in of_line],
                [_half(row["metrics"].get(column, {}).get("std")) for row in of_line],
            )
            for (run, epsilon), of_line in lines.items()
        ]
    lines_figure(plots, path, x_label="sigma", y_label="mean, and half a standard deviation")


def format_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table, mean and standard deviation over the signals."""
    columns = [name for name in COLUMNS if any(name in row["metrics"] for row in rows)]
    heads = ["run", "sigma", "epsilon", "S", *(COLUMNS[name] for name in columns)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in rows:
        cells = [row["run"], f"{row['sigma']:g}", f"{row['epsilon']:g}", str(row["num_samples"])]
        for name in columns:
            numbers = row["metrics"].get(name)
            metric = "psnr" if name.endswith("psnr") else name
            cells.append("none" if numbers is None else spread(**numbers, metric=metric))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def definitions(experiment: Experiment, plan: Plan, count: int, seed: int) -> dict[str, Any]:
    """Return what every number of a report means, as JSON values."""
    held = "for all signals at once" if plan.simultaneous else "for each signal by itself"
    return {
        **DEFINITIONS,
        "threat": "||xi||_2 <= epsilon, added to the signal, in the signals' unit",
        "noise": "delta ~ N(0, sigma^2 I), added to the signal and not clipped",
        "confidence": f"{plan.confidence:g} {held}, over the draws; {count} signals",
        "attack": attack_definition(experiment.config.evaluate.attack),
        "attacked function": f"mean over {plan.attack_draws} draws of the noise"
        if plan.attack_draws
        else "f itself, without noise",
        "seconds": "of the draws of the last signal",
        "seed": seed,
    }


def _median(losses: np.ndarray) -> np.ndarray:
    """Return the draw in the middle of each signal, `(signals, S) -> (signals,)`."""
    return np.sort(losses)[:, certify.median_rank(losses.shape[1]) - 1]


def _psnr(error: Any) -> Any:
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def _finite(values: np.ndarray, statistic: Callable[[np.ndarray], Any]) -> float | None:
    return float(statistic(values)) if np.isfinite(values).all() else None


def _half(std: float | None) -> float | None:
    return None if std is None else std / 2
