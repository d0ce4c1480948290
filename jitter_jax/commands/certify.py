"""Certify trained reconstructors: the work of `bin/certify`."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jitter_jax import certify, profiling
from jitter_jax import experiment as experiments
from jitter_jax.attacks import Threat, expectation, perturbed, reconstruction_error
from jitter_jax.attacks.threat import Space
from jitter_jax.commands.evaluate import attack_definition, list_skipped, write_json
from jitter_jax.commands.kept import Kept, fingerprint
from jitter_jax.data.part import Part
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.data.sources import PICTURE_KINDS
from jitter_jax.devices import choose_devices, devices_at_most, fetch, is_first_process
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
from jitter_jax.experiment import Experiment, signal_type
from jitter_jax.files import checked_folder
from jitter_jax.keys import domain_key, subkey
from jitter_jax.metrics import mse
from jitter_jax.operators import LinearOperator

Array = jax.Array
Params = Any
Runs = Mapping[str, tuple[Experiment, Params]]
Budgets = dict[tuple[float, float, int], certify.Budget | None]  # by sigma, epsilon and samples

CERTIFICATES = ("loss", "pixels", "centre")
SIGNALS_FILE = "certify_signals.json"
_CPU_PIXELS = 65_536  # of all draws at once on a CPU, when nobody says
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


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is certified.

    Attributes:
        sigmas: standard deviations of the noise, in the unit of the signals.
        epsilons: l2 radii of the threats, in the same unit.
        samples: numbers of draws.
        confidence: of each certificate.
        certificates: of `CERTIFICATES`: `"loss"` bounds discrepancy and error.
        space: where threat and noise are: `"signal"` or `"measurement"`.
        simultaneous: one confidence holds for all signals, and all pixels, at once.
        attack_draws: draws of the noise that an attack averages over; 0 attacks the bare network.
        chunk: draws at once; None takes 32, and on a CPU as many as its caches hold, of pictures
            one or a few.
    """

    sigmas: tuple[float, ...]
    epsilons: tuple[float, ...]
    samples: tuple[int, ...] = (1000,)
    confidence: float = 0.99
    certificates: tuple[str, ...] = ("loss",)
    space: Space = "signal"
    simultaneous: bool = False
    attack_draws: int = 0
    chunk: int | None = None


def certify_runs(
    runs: Runs,
    output: str | Path,
    plan: Plan,
    *,
    num_examples: int | None = None,
    seed: int = 0,
    progress: bool = True,
    profile: str | Path | None = None,
) -> dict[str, Any]:
    """Certify reconstructors on test signals, side by side.

    Writes `certify.json`, `certify.csv`, `certify.png` (the first signal, if it has two axes or
    more) and, of several sigmas, `curves.png`. What is known of each signal is kept in
    `certify_signals.json`, so that the same call goes on where it was stopped.

    Args:
        runs: experiments that measure the same signals, with their parameters, by name.
        output: folder for the results.
        plan: what is certified.
        num_examples: signals of the test set, from its first; all if None.
        seed: of noise and attacks.
        progress: whether to show a progress bar.
        profile: folder for a trace of each run's first signal, certified again when everything is
            compiled.

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
    profile = None if profile is None else checked_folder(profile, "profile")
    kept = Kept(output / SIGNALS_FILE)
    rows: list[dict[str, Any]] = []
    pictures: list[list[Panel]] = []
    for name, (experiment, params) in runs.items():
        run = _Run(experiment, params, plan, budgets, seed)
        signals = tqdm(
            run.signals(count),
            total=count,
            desc=name,
            disable=not (progress and is_first_process()),
            leave=False,
        )
        values = [
            kept.rows(run.settings(number), partial(run.certified, *signal))
            for number, signal in enumerate(signals)
        ]
        found = [
            {"run": name, "scheme": experiment.config.scheme.name, **row}
            for row in _rows(budgets, values)
        ]
        if is_first_process():
            print(f"\n{format_rows(found)}")
            list_skipped(experiment)
        rows += found
        pictures.append(run.panels())
        if profile is not None:
            run.trace(profile / name)
    report = {"rows": rows, "definitions": definitions(first, plan, count, seed)}
    if not is_first_process():
        return report
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "certify.json", report)
    plain = [{key: value for key, value in row.items() if key != "values"} for row in rows]
    write_csv(output / "certify.csv", plain)
    if all(pictures):
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
                space=plan.space,
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


def _draws_at_once(experiment: Experiment) -> int:
    """Return how many draws are fastest: on a CPU, those whose activations stay in its caches."""
    most = 32
    if jax.default_backend() == "cpu":
        pixels = math.prod(signal_type(experiment.config)["shape"])
        most = max(1, min(most, _CPU_PIXELS // pixels))
    devices = experiment.config.devices.num or devices_at_most()
    return -(-most // devices) * devices


class _Run:
    """One reconstructor; each of its programs compiles once for all signals and sigmas."""

    def __init__(
        self, experiment: Experiment, params: Params, plan: Plan, budgets: Budgets, seed: int
    ):
        self._experiment, self._params, self._plan = experiment, params, plan
        self._budgets, self._seed = budgets, seed
        self._fingerprint = fingerprint(experiment.config, params)
        self._root, self._frozen = (domain_key(seed, use) for use in ("certify", "frozen"))
        self._compiled = False
        self._search = experiments.make_attack(experiment.config.evaluate.attack)
        chunk = _draws_at_once(experiment) if plan.chunk is None else plan.chunk
        devices = choose_devices(experiment.config.devices.num, chunk, name="chunk")
        self._at_once: dict[str, Any] = {"chunk": chunk, "devices": devices}
        self._estimate = jax.jit(lambda operator, y: self._f(operator)(y))
        self._losses = _fetched(self._losses_of)
        self._attack = jax.jit(self._attack_of)
        whole = {
            budget for budget in budgets.values() if budget and set(plan.certificates) - {"loss"}
        }
        self._pixels = {budget: _fetched(self._pixels_of(budget)) for budget in whole}
        self._centre = {budget: _fetched(self._centre_of(budget)) for budget in whole}

    def settings(self, number: int) -> dict[str, Any]:
        """Return what the numbers of a signal hang on."""
        plan = {key: v for key, v in dataclasses.asdict(self._plan).items() if key != "chunk"}
        confidence = first_certified(self._budgets).confidence
        return {
            "fingerprint": self._fingerprint,
            "number": number,
            "seed": self._seed,
            **plan,
            "confidence": confidence,
        }

    def signals(self, count: int) -> Iterator[tuple[LinearOperator, Array, Array, Array]]:
        """Give operator, truth, measurement and key of the first signals."""
        source = Part(self._experiment.sources["test"], 0, count)
        for number, examples in enumerate(evaluation_batches(source, 1)):
            batch = self._experiment.measure(examples, "test")
            key = jax.random.fold_in(self._root, number)
            yield batch.operator_of(0), batch.signal[0], batch.measurement[0], key

    def certified(
        self, operator: LinearOperator, x: Array, y: Array, key: Array
    ) -> list[dict[str, float | None]]:
        """Return the columns of one signal at every budget, None where there is no number."""
        plan = self._plan
        first_certified(self._budgets).check_range(x)
        clean = _psnr(mse(self._estimate(operator, y), x))
        losses = {
            sigma: self._losses(operator, x, y, sigma, subkey(key, "clean"))
            for sigma in plan.sigmas
        }
        seen: dict[tuple[float, float | None], Array] = {}
        attacked: dict[tuple[float, float], tuple[Any, Array]] = {}
        for epsilon, sigma in itertools.product(plan.epsilons, plan.sigmas):
            # Without draws the attack does not depend on the noise.
            level = sigma if plan.attack_draws else None
            if (epsilon, level) not in seen:
                threat = Threat(epsilon, space=plan.space)
                seen[epsilon, level] = self._attack(
                    operator, x, y, threat, sigma, subkey(key, "attack")
                )
            moved = seen[epsilon, level]
            noisy = self._losses(operator, x, moved, sigma, subkey(key, "attacked"))
            attacked[epsilon, sigma] = mse(self._estimate(operator, moved), x), noisy[:, 0]
        found = []
        for (sigma, epsilon, samples), budget in self._budgets.items():
            errors, discrepancies = np.sort(losses[sigma][:samples], axis=0).T
            error, noisy = attacked[epsilon, sigma]
            middle = certify.median_rank(samples) - 1
            values = {
                "psnr": clean,
                "attacked_psnr": _psnr(error),
                "smoothed_psnr": _psnr(errors[middle]),
                "smoothed_attacked_psnr": _psnr(np.sort(noisy[:samples])[middle]),
                "discrepancy": discrepancies[middle],
            }
            if budget is not None:
                bound = budget.rank() - 1
                values["certified_psnr"] = _psnr(errors[bound])
                values["certified_discrepancy"] = discrepancies[bound]
                values |= self._whole_image(budget, operator, x, y, key)
            found.append({name: float(v) if np.isfinite(v) else None for name, v in values.items()})
        self._compiled = True
        return found

    def trace(self, folder: Path) -> None:
        """Certify the first signal once more, under a trace."""
        signal = next(self.signals(1))
        if not self._compiled:  # all rows were read back
            self.certified(*signal)
        with profiling.trace(folder):
            self.certified(*signal)
        if is_first_process():
            print(f"certificates of one signal traced in {folder}")

    def _f(self, operator: LinearOperator) -> certify.Reconstruction:
        return certify.freeze(
            self._experiment.reconstructor, self._params, operator, key=self._frozen
        )

    def _losses_of(self, operator: LinearOperator, x: Array, y: Array, sigma: Array, key: Array):
        f = self._f(operator)
        reference = f(y)
        losses = certify.statistics(
            f,
            operator,
            y,
            sigma=sigma,
            key=key,
            space=self._plan.space,
            statistic=lambda z: jnp.stack([mse(z, x), mse(z, reference)]),
            num_samples=max(self._plan.samples),
            **self._at_once,
        )
        return jnp.where(jnp.isnan(losses), jnp.inf, losses)

    def _attack_of(
        self,
        operator: LinearOperator,
        x: Array,
        y: Array,
        threat: Threat,
        sigma: Array,
        key: Array,
    ) -> Array:
        f, space = self._f(operator), self._plan.space

        def objective_of(key):
            noisy = lambda y: certify.draw(
                f, operator, y, sigma=sigma, key=key, number=0, space=space
            )
            target = noisy if self._plan.attack_draws else f
            return reconstruction_error(target, operator, x, y, space=space)

        objective = expectation(
            objective_of, key=subkey(key, "noise"), num_draws=max(self._plan.attack_draws, 1)
        )
        search = self._search(threat.ball_at(operator, x, y))
        start = jnp.zeros_like(x if space == "signal" else y)
        delta, _ = search(objective, start, subkey(key, "search"))
        return perturbed(operator, y, delta, space)

    def _whole_image(
        self, budget: certify.Budget, operator: LinearOperator, x: Array, y: Array, key: Array
    ) -> dict[str, Any]:
        """Return what the certificates of whole images say of a signal."""
        found = {}
        if "pixels" in self._plan.certificates:
            images = self._pixels[budget](operator, y, subkey(key, "pixels"))
            found["pixel_width"] = jnp.mean(jnp.abs(images.upper - images.lower))
        if "centre" in self._plan.certificates:
            centre = self._centre[budget](operator, y, subkey(key, "centre"))
            found["centre_rms"] = centre.bound / np.sqrt(x.size)
        return found

    def _pixels_of(self, budget: certify.Budget) -> Callable[..., certify.PixelCertificate]:
        return lambda operator, y, key: certify.certified_pixels(
            self._f(operator),
            operator,
            y,
            budget=budget,
            key=key,
            simultaneous=self._plan.simultaneous,
            **self._at_once,
        )

    def _centre_of(self, budget: certify.Budget) -> Callable[..., certify.CentreCertificate]:
        return lambda operator, y, key: certify.certified_centre(
            self._f(operator),
            operator,
            y,
            budget=budget,
            key=key,
            **self._at_once,
        )

    def panels(self) -> list[Panel]:
        """Return pictures of the first signal, at the first budget that certifies.

        There are none of a signal of one axis.
        """
        budget = first_certified(self._budgets)
        operator, x, y, key = next(self.signals(1))
        if x.ndim < 2:
            return []
        seen = np.asarray(visible(operator, y))
        estimate = self._estimate(operator, y)
        positive = self._experiment.config.data.kind in PICTURE_KINDS
        truth = np.asarray(x)
        limit = largest(truth)
        title = f"estimate, {_psnr(mse(estimate, x)):.1f} dB"
        panels = [
            Panel(visible_title(seen, y), seen, largest(seen), positive),
            Panel("truth", truth, limit, positive),
            Panel(title, np.asarray(estimate), limit, positive),
        ]
        certificate = jax.jit(
            lambda operator, x, y, key: certify.certified_error(
                self._f(operator),
                operator,
                y,
                x,
                budget=budget,
                key=key,
                **self._at_once,
            )
        )(operator, x, y, subkey(key, "clean"))
        certificate = fetch(certificate)
        for what, loss, image in (
            ("median draw", certificate.median, certificate.median_estimate),
            ("draw of the bound", certificate.bound, certificate.estimate),
        ):
            image = np.asarray(image)
            panels.append(Panel(f"{what}, {_psnr(loss):.1f} dB", image, limit, positive))
        if "pixels" in self._plan.certificates:
            images = self._pixels[budget](operator, y, subkey(key, "pixels"))
            lower, upper = np.asarray(images.lower), np.asarray(images.upper)
            width = np.abs(upper - lower)
            panels += [
                Panel("lower", lower, limit, positive),
                Panel("upper", upper, limit, positive),
                Panel(f"width, mean {width.mean():.3f}", width, largest(width), True),
            ]
        return panels


def _fetched(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the compiled function, with results of NumPy: those of all devices together."""
    compiled = jax.jit(function)
    return lambda *arguments: fetch(compiled(*arguments))


def _rows(budgets: Budgets, signals: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[Any]:
    """Give the table's rows, one a budget."""
    for number, ((sigma, epsilon, samples), budget) in enumerate(budgets.items()):
        of_signals = [values[number] for values in signals]
        values = {name: [each[name] for each in of_signals] for name in of_signals[0]}
        yield {
            "sigma": sigma,
            "epsilon": epsilon,
            "num_samples": samples,
            "rank": None if budget is None else budget.rank(),
            "num_signals": len(of_signals),
            "metrics": {
                name: {"mean": _over(of_each, np.mean), "std": _over(of_each, np.std)}
                for name, of_each in values.items()
            },
            "values": values,
        }


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
        "threat": f"||xi||_2 <= epsilon, added to the {plan.space}, in the signals' unit",
        "noise": f"delta ~ N(0, sigma^2 I), added to the {plan.space} and not clipped",
        "confidence": f"{plan.confidence:g} {held}, over the draws; {count} signals",
        "attack": attack_definition(experiment.config.evaluate.attack),
        "attacked function": f"mean over {plan.attack_draws} draws of the noise"
        if plan.attack_draws
        else "f itself, without noise",
        "seed": seed,
    }


def _psnr(error: Any) -> Any:
    with np.errstate(divide="ignore"):
        return -10 * np.log10(error)


def _over(values: Sequence[float | None], statistic: Callable[[Any], np.floating]) -> float | None:
    return None if None in values else float(statistic(values))


def _half(std: float | None) -> float | None:
    return None if std is None else std / 2
