"""Seismic reflectivity: generated, from well logs, from velocity models, and recorded sections.

A section is `(time, traces)`, or `(time, traces, 1)` as an item of a source. Time is two-way
travel time in samples. A reflectivity is the pressure reflection coefficient at normal incidence,
positive where impedance increases downwards.

Generated and well sections share one construction. Layers have a *layer time* each, the time at
which they lie in an undisturbed earth. Dip, folds, thickening and faults carry them to the
*arrival time* at which a trace records them; `Structure` says by how much. A layer appears in the
sample nearest to its arrival time, with its whole amplitude: splitting it over two samples would
place it more finely, but a section would no longer be sparse. Layers that arrive in one sample add.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jitter_jax.data._checks import checked_count, checked_index
from jitter_jax.data._streams import Purpose, checked_seed, stream
from jitter_jax.data.files import as_float32, load_arrays
from jitter_jax.data.pipeline import Example, Source

_WAVES_IN_A_BEND = 3
_GAP_M = 5.0
_MISSING_FRACTION = 0.05
_DENSITY_KG_PER_M3 = (1000.0, 4000.0)
_TREND = 0.01
_ROUNDING = 1e-6
_REPO_ROW, _REPO_COLUMNS = 140, (170, 180)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structure:
    """How far a section departs from flat, even layers.

    Each section draws its own structure within these bounds; zero everywhere leaves flat layers.

    Args:
        dip: largest slope of the layers, either way, in samples per trace.
        fold: largest displacement by folds, in samples; the folds are smooth over the width.
        thickening: largest change of the layers' thickness from the middle trace to the side
            traces, relative, `[0, 1)`.
        faults: fewest and most faults.
        throw: smallest and largest vertical displacement of a fault, in samples.
        fault_lean: largest horizontal shift of a fault plane, in traces per sample of depth.
        amplitude_change: largest relative change of a layer's amplitude along it, `[0, 1)`.

    Raises:
        ValueError: a value outside its range.
    """

    dip: float = 0.12
    fold: float = 10.0
    thickening: float = 0.15
    faults: tuple[int, int] = (0, 3)
    throw: tuple[float, float] = (5.0, 20.0)
    fault_lean: float = 0.4
    amplitude_change: float = 0.3

    def __post_init__(self):
        for name in ("dip", "fold", "fault_lean"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r} is not accepted: a number >= 0 is expected")
        for name in ("thickening", "amplitude_change"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(
                    f"{name}={value!r} is not accepted: a number in [0, 1) is expected"
                )
        for name in ("faults", "throw"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] < math.inf:
                raise ValueError(
                    f"{name}={bounds!r} is not accepted: "
                    "(smallest, largest) with 0 <= smallest <= largest is expected"
                )
        if any(int(number) != number for number in self.faults):
            raise ValueError(f"faults={self.faults!r} is not accepted: whole numbers are expected")


DEFAULT_STRUCTURE = Structure()
FLAT = Structure(dip=0, fold=0, thickening=0, faults=(0, 0), amplitude_change=0)


def reflectivity_section(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    mean_spacing: float = 12.0,
    min_spacing: float = 3.0,
    smallest: float = 0.05,
    structure: Structure = DEFAULT_STRUCTURE,
) -> np.ndarray:
    """Draw a sparse section of continuous layers with dips, folds and faults.

    The gaps between layer times are `min_spacing` plus an exponential variable. A layer's
    amplitude has a random sign and a magnitude whose logarithm is uniform between `smallest` and
    1: many weak layers and few strong ones, as in the earth.

    Args:
        rng: where the numbers come from.
        shape: `(time, traces)`.
        mean_spacing: mean gap between layers in samples, above `min_spacing`; one sample in
            `mean_spacing` is not zero.
        min_spacing: smallest gap in samples, at least 1.
        smallest: magnitude of the weakest layer relative to the strongest, `(0, 1]`.
        structure: bounds of the departures from flat layers.

    Returns:
        `(time, traces)` float32, largest absolute value 1.

    Raises:
        ValueError: an argument outside its range.

    Source: in the spirit of the generated sets of Iqbal et al. 2019 and Guan et al. 2024, whose
    exact settings are not published.
    """
    shape = _checked_shape(shape)
    if not 1 <= min_spacing < mean_spacing < math.inf:
        raise ValueError(
            f"min_spacing={min_spacing!r} with mean_spacing={mean_spacing!r} is not accepted: "
            "1 <= min_spacing < mean_spacing is expected"
        )
    if not 0 < smallest <= 1:
        raise ValueError(f"smallest={smallest!r} is not accepted: a number in (0, 1] is expected")
    first, last = _layer_time_windows(rng, shape, structure)
    times = _layer_times(rng, first, last, mean_spacing, min_spacing)
    magnitudes = np.exp(rng.uniform(math.log(smallest), 0.0, times.size))
    amplitudes = magnitudes * rng.choice([-1.0, 1.0], times.size)
    lateral = _lateral_change(rng, times.size, shape[1], structure)
    return _normalised(_place(times, amplitudes[:, None] * lateral, first, last))


def _layer_time_windows(
    rng: np.random.Generator, shape: tuple[int, int], structure: Structure
) -> tuple[np.ndarray, np.ndarray]:
    """Layer times that each sample gathers.

    Sample (t, x) gathers the arrival times [t - 1/2, t + 1/2), which are the layer times
    [first, last) = arrival - bend(x) - stretch(x) (arrival - centre) - fault(t, x).
    """
    num_samples, num_traces = shape
    offsets = np.arange(num_traces) - (num_traces - 1) / 2
    bend = structure.dip * rng.uniform(-1, 1) * offsets
    bend += structure.fold * _smooth(rng, 1, num_traces)[0]
    stretch = structure.thickening * rng.uniform(-1, 1) * offsets / max(num_traces / 2, 1)
    arrival = np.arange(num_samples + 1)[:, None] - 0.5
    layer_times = arrival - bend - stretch * (arrival - num_samples / 2)
    throw = _fault_displacement(rng, shape, structure)
    return layer_times[:-1] - throw, layer_times[1:] - throw


def _fault_displacement(
    rng: np.random.Generator, shape: tuple[int, int], structure: Structure
) -> np.ndarray:
    """Downward displacement by normal faults: the block that lies on the plane has slid down."""
    num_samples, num_traces = shape
    below_centre = np.arange(num_samples)[:, None] - num_samples / 2
    traces = np.arange(num_traces)
    displacement = np.zeros(shape)
    for _ in range(rng.integers(structure.faults[0], structure.faults[1] + 1)):
        lean = structure.fault_lean * rng.uniform(-1, 1)
        plane = num_traces * rng.uniform(0.1, 0.9) + lean * below_centre
        hanging = traces > plane if lean >= 0 else traces < plane
        displacement += rng.uniform(*structure.throw) * hanging
    return displacement


def _smooth(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Draw `(count, length)` smooth curves within [-1, 1], half a wave to two waves wide."""
    waves = (count, _WAVES_IN_A_BEND, 1)
    weights = rng.uniform(size=waves)
    cycles = rng.uniform(0.5, 2.0, waves)
    phases = rng.uniform(0, 2 * np.pi, waves)
    curves = weights * np.cos(2 * np.pi * cycles * np.arange(length) / length + phases)
    return curves.sum(1) / weights.sum(1)


def _lateral_change(
    rng: np.random.Generator, num_layers: int, num_traces: int, structure: Structure
) -> np.ndarray:
    return 1 + structure.amplitude_change * _smooth(rng, num_layers, num_traces)


def _layer_times(
    rng: np.random.Generator,
    first: np.ndarray,
    last: np.ndarray,
    mean_spacing: float,
    min_spacing: float,
) -> np.ndarray:
    # Layers go up and down from one that the middle trace is sure to show, so that no section,
    # however short, is empty.
    middle = first.shape[1] // 2
    row = rng.integers(first.shape[0])
    anchor = (first[row, middle] + last[row, middle]) / 2
    span = last.max() - first.min()
    count = math.ceil(span / min_spacing)
    gaps = min_spacing + rng.exponential(mean_spacing - min_spacing, (2, count))
    up, down = np.cumsum(gaps, axis=1)
    times = np.concatenate([anchor - up[::-1], [anchor], anchor + down])
    return times[(times >= first.min()) & (times < last.max())]


def _place(
    times: np.ndarray, amplitudes: np.ndarray, first: np.ndarray, last: np.ndarray
) -> np.ndarray:
    """Sum, in each sample, the layers whose times lie in [first, last).

    Args:
        times: `(layers,)`, increasing.
        amplitudes: `(layers, traces)`.
        first: `(time, traces)`.
        last: `(time, traces)`.
    """
    cumulative = np.concatenate([np.zeros((1, amplitudes.shape[1])), np.cumsum(amplitudes, axis=0)])
    until_first = np.take_along_axis(cumulative, np.searchsorted(times, first), axis=0)
    until_last = np.take_along_axis(cumulative, np.searchsorted(times, last), axis=0)
    return until_last - until_first


def _normalised(section: np.ndarray) -> np.ndarray:
    # A part of a recorded section may be muted altogether; it stays zero.
    peak = np.abs(section).max()
    return (section / (peak or 1)).astype(np.float32)


class GeneratedSections:
    """Sections drawn on demand by `reflectivity_section`.

    Args:
        num_sections: number of examples, at least 1.
        seed: not negative; example i depends on `(seed, i)` only.
        shape: `(time, traces)`.
        options: as for `reflectivity_section`.

    Items:
        `signal`: `(time, traces, 1)` float32, largest absolute value 1.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(self, num_sections: int, seed: int, shape: tuple[int, int], **options):
        self._num_sections = checked_count("num_sections", num_sections)
        self._seed = checked_seed(seed)
        self._shape = _checked_shape(shape)
        self._options = options
        # Wrong options are found here rather than by a thread that reads ahead.
        self[0]

    def __len__(self) -> int:
        return self._num_sections

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, self._num_sections)
        rng = stream(self._seed, number, Purpose.SECTIONS)
        return {"signal": reflectivity_section(rng, self._shape, **self._options)[..., None]}


def add_layer(
    section: np.ndarray,
    magnitude: float,
    *,
    sign: int = 1,
    row: int | None = None,
    columns: tuple[int, int] | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Add one horizontal layer, which no section of the training set has.

    r' = r + sign * magnitude on one row of `columns`; the result is not normalised again, so that
    it differs from `section` in the layer only.

    A row that is not given is drawn where the layer stands clear: a row's traffic is the sum of
    |r| over `columns` of it and of its two neighbours on each side; the row is uniform over the
    quarter with the least traffic of the rows between the upper and the lower tenth. It does not
    depend on `magnitude`.

    Args:
        section: `(time, traces)` or `(time, traces, 1)`.
        magnitude: above zero, relative to max |r| = 1.
        sign: 1 or -1.
        row: time of the layer in samples, or `None` to draw it.
        columns: first trace and the one after the last; `None` is the whole width.
        rng: where the row comes from, needed when `row` is `None`.

    Returns:
        A new array like `section`.

    Raises:
        ValueError: an argument outside its range, or a layer that is not within the section.

    Source: the out-of-distribution test of "SGD Jittering": magnitudes 0.1 and 0.3.
    """
    first, last = (0, section.shape[1]) if columns is None else columns
    _check_magnitude(magnitude)
    if sign not in (1, -1):
        raise ValueError(f"sign={sign!r} is not accepted: 1 or -1 is expected")
    if not 0 <= first < last <= section.shape[1]:
        raise ValueError(
            f"columns={columns} is not accepted: (first, last) within 0..{section.shape[1]} is "
            "expected"
        )
    if row is None:
        if rng is None:
            raise ValueError("rng=None is not accepted without a row: give one of the two")
        row = _quiet_row(section[:, first:last], rng)
    if not 0 <= row < section.shape[0]:
        raise ValueError(f"row={row} is not accepted: 0..{section.shape[0] - 1} is expected")
    layered = section.copy()
    layered[row, first:last] += sign * magnitude
    return layered


def _quiet_row(section: np.ndarray, rng: np.random.Generator) -> int:
    num_samples = section.shape[0]
    by_row = np.abs(section).reshape(num_samples, -1).sum(1)
    traffic = np.convolve(np.pad(by_row, 2), np.ones(5), mode="valid")
    margin = num_samples // 10
    inner = np.arange(margin, num_samples - margin)
    quietest = inner[np.argsort(traffic[inner], kind="stable")]
    return int(rng.choice(quietest[: math.ceil(inner.size / 4)]))


def add_layer_repo(section: np.ndarray, magnitude: float = 0.1) -> np.ndarray:
    """Put in the short layer of the public code of "SGD Jittering".

    r'[140, 170:180] = -magnitude. The old values are overwritten; traces past the border are left
    out without notice.

    Args:
        section: `(time, traces)` or `(time, traces, 1)`, more than 140 samples and 170 traces.
        magnitude: above zero.

    Returns:
        A new array like `section`.

    Raises:
        ValueError: `magnitude` is not above zero, or nothing of the layer is within the section.
    """
    _check_magnitude(magnitude)
    first, last = _REPO_COLUMNS
    if section.shape[0] <= _REPO_ROW or section.shape[1] <= first:
        raise ValueError(
            f"section has shape {section.shape}; more than {_REPO_ROW} samples and {first} traces "
            "are expected, or the layer is not in it"
        )
    layered = section.copy()
    layered[_REPO_ROW, first:last] = -magnitude
    return layered


class LayeredSource:
    """Another source's examples, each with one layer more.

    Example i is example i of `source` with the layer, so the two sources are compared example by
    example; two magnitudes of one seed put it in the same row.

    Args:
        source: items with `signal` of `(time, traces, 1)` and without `measurement`, which
            would no longer be a measurement of the signal.
        magnitude: above zero, relative to max |r| = 1; 0.1 (small) and 0.3 (large) in the paper.
        seed: not negative; the row of example i depends on `(seed, i)` and on the signal.
        reading: `"paper"` is `add_layer`, `"repo"` is `add_layer_repo`, which
            draws nothing.

    Items:
        `signal`: as of `source`.

    Raises:
        ValueError: an argument outside its range; when an item is read, one that is not as above.
    """

    def __init__(
        self,
        source: Source,
        magnitude: float,
        seed: int,
        *,
        reading: Literal["paper", "repo"] = "paper",
    ):
        if reading not in ("paper", "repo"):
            raise ValueError(f"reading={reading!r} is not accepted: 'paper' or 'repo' is expected")
        _check_magnitude(magnitude)
        self._source = source
        self._magnitude = magnitude
        self._seed = checked_seed(seed)
        self._reading = reading

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, len(self))
        example = self._source[number]
        if set(example) != {"signal"}:
            raise ValueError(
                f"the items of source have {sorted(example)}; accepted: 'signal' alone, because a "
                "measurement would have to change with it"
            )
        if self._reading == "repo":
            return {"signal": add_layer_repo(example["signal"], self._magnitude)}
        rng = stream(self._seed, number, Purpose.ADDED_LAYERS)
        return {"signal": add_layer(example["signal"], self._magnitude, rng=rng)}


class WellReflectivity(NamedTuple):
    """A reflectivity series in regular two-way time.

    Args:
        time_s: `(n,)` float32, seconds after the top of the log; k + 1 intervals for entry k.
        reflectivity: `(n,)` float32, in (-1, 1).
    """

    time_s: np.ndarray
    reflectivity: np.ndarray


def well_reflectivity(
    path: str | Path, well: str, *, interval_s: float = 0.004
) -> WellReflectivity:
    """Turn the logs of a well into a reflectivity series.

    A log sample stands for a step of depth h, crossed down and up in 2 * sonic * h. Impedance Z is
    averaged over each interval of two-way time, and r_k = (Z_{k+1} - Z_k) / (Z_{k+1} + Z_k) at the
    border of intervals k and k + 1.

    An average is taken, not the sample at the interval's middle: an interval holds some forty log
    samples, and picking one would fold all detail finer than the interval into r as if it were
    layering. The average over time is the right one: it equals mass passed over time taken, mean
    density times mean velocity, so it is the impedance of the interval as one layer.

    Samples without sonic or impedance are cut off at the ends. Inside, gaps of up to 5 m, and up
    to 5 % of the samples in all, are filled by a straight line in depth.

    Args:
        path: archive with `<well>_depth_m`, `<well>_sonic` (microseconds per metre) and
            `<well>_impedance` (m/s kg/m3), each `(samples,)`, NaN where absent.
        well: the well's name as in the keys (`F02_1`); `-` is read as `_`.
        interval_s: sampling interval in seconds, above zero.

    Returns:
        A series that ends with the last whole interval.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file, the well or the logs are not as above; too much of them is missing.
    """
    _check_interval(interval_s)
    name = well.replace("-", "_")
    keys = [f"{name}_{log}" for log in ("depth_m", "sonic", "impedance")]
    arrays = load_arrays(path, keys=keys)
    logs = [_as_float64(path, key, arrays[key], ndim=1) for key in keys]
    if len({log.size for log in logs}) > 1:
        raise ValueError(
            f"{path}: the logs of {well!r} have {[log.size for log in logs]} samples; "
            "accepted: equally many"
        )
    depth, sonic, impedance = _complete_logs(f"{path}: well {well!r}", *logs)
    seconds = 2e-6 * sonic * _thickness(f"{path}: {keys[0]!r}", depth)
    mean = _time_average(impedance, seconds, interval_s)
    if mean.size < 2:
        raise ValueError(
            f"{path}: well {well!r} spans {seconds.sum():.4g} s; "
            f"at least two intervals of interval_s={interval_s} are expected"
        )
    reflectivity = (mean[1:] - mean[:-1]) / (mean[1:] + mean[:-1])
    time_s = interval_s * np.arange(1, mean.size)
    return WellReflectivity(time_s.astype(np.float32), reflectivity.astype(np.float32))


def _complete_logs(
    where: str, depth: np.ndarray, sonic: np.ndarray, impedance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    known = np.isfinite(sonic) & np.isfinite(impedance)
    if known.sum() < 2:
        raise ValueError(
            f"{where} has {known.sum()} samples with sonic and impedance; at least 2 are expected"
        )
    inside = slice(*(np.flatnonzero(known)[[0, -1]] + [0, 1]))
    depth, sonic, impedance, known = (log[inside] for log in (depth, sonic, impedance, known))
    missing = 1 - known.mean()
    gap = np.diff(depth[known]).max()
    if not known.all() and (gap > _GAP_M or missing > _MISSING_FRACTION):
        raise ValueError(
            f"{where} lacks {missing:.1%} of its samples, the largest step is {gap:.4g} m; "
            f"accepted: up to {_MISSING_FRACTION:.0%} and {_GAP_M:.4g} m"
        )
    sonic, impedance = (np.interp(depth, depth[known], log[known]) for log in (sonic, impedance))
    if min(sonic.min(), impedance.min()) <= 0:
        raise ValueError(f"{where} has a sonic or impedance that is not above zero")
    # Both logs enter, so a wrong unit of either shows.
    density = np.median(1e-6 * sonic * impedance)
    smallest, largest = _DENSITY_KG_PER_M3
    if not smallest <= density <= largest:
        raise ValueError(
            f"{where} has a median sonic * impedance of {density:.4g} kg/m3; accepted: "
            f"{smallest:.4g} to {largest:.4g} (sonic in microseconds per metre, impedance in "
            "m/s kg/m3)"
        )
    return depth, sonic, impedance


def _as_float64(path: str | Path, key: str, array: np.ndarray, *, ndim: int) -> np.ndarray:
    # NaN is allowed here: it marks what a log lacks.
    if array.dtype.kind not in "fiu" or array.ndim != ndim:
        raise ValueError(
            f"{path}: {key!r} is {array.dtype} with shape {array.shape}; "
            f"accepted: real numbers with {ndim} axes"
        )
    return array.astype(np.float64)


def _thickness(where: str, depth: np.ndarray) -> np.ndarray:
    """Depth that each sample stands for: from half-way to the one above to half-way to the next."""
    steps = np.diff(depth)
    if depth.size < 2 or not (steps > 0).all():
        raise ValueError(f"{where}: the depths do not increase; accepted: at least two, increasing")
    return np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])


def _time_average(values: np.ndarray, seconds: np.ndarray, interval_s: float) -> np.ndarray:
    """Average a piecewise constant function of time over every whole interval.

    Args:
        values: `(cells,)`.
        seconds: `(cells,)`, how long each value lasts.
        interval_s: length of an interval.
    """
    time = np.concatenate([[0.0], np.cumsum(seconds)])
    integral = np.concatenate([[0.0], np.cumsum(values * seconds)])
    # The last border may miss the end of the log by rounding only.
    borders = interval_s * np.arange(int(time[-1] / interval_s + 1e-6) + 1)
    return np.diff(np.interp(borders, time, integral)) / interval_s


class WellSections:
    """Sections made of the layers that wells have met.

    A window of a well's series is carried along a structure drawn as for generated sections.

    The top of a series in which |r| stays below 1 % of its largest value is left out: there the
    tool did not log, and a trend was put in. The window lies within the rest at random. Beyond its
    ends, which dips and faults bring in, the log is mirrored, as if the earth were passed a second
    time the other way: the series in reverse, with its sign changed. Where the log is shorter than
    the section, the window starts anywhere in the mirrored log.

    Args:
        path: as for `well_reflectivity`.
        wells: names of wells; each example draws one. Train on some and test on the others.
        num_sections: number of examples, at least 1.
        seed: not negative; example i depends on `(seed, i)`, the file and the options only.
        shape: `(time, traces)`.
        interval_s: sampling interval in seconds.
        structure: bounds of the departures from flat layers.

    Items:
        `signal`: `(time, traces, 1)` float32, largest absolute value 1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an argument outside its range, or logs that cannot be used.
    """

    def __init__(
        self,
        path: str | Path,
        wells: Sequence[str],
        num_sections: int,
        seed: int,
        shape: tuple[int, int],
        *,
        interval_s: float = 0.004,
        structure: Structure = DEFAULT_STRUCTURE,
    ):
        if isinstance(wells, str) or not wells:
            raise ValueError(f"wells={wells!r} is not accepted: at least one name is expected")
        self._series = [_logged_part(path, well, interval_s) for well in wells]
        self._num_sections = checked_count("num_sections", num_sections)
        self._seed = checked_seed(seed)
        self._shape = _checked_shape(shape)
        self._structure = structure

    def __len__(self) -> int:
        return self._num_sections

    def __getitem__(self, index: int) -> Example:
        number = checked_index(index, self._num_sections)
        rng = stream(self._seed, number, Purpose.WELL_SECTIONS)
        series = self._series[rng.integers(len(self._series))]
        spare = series.size - self._shape[0]
        start = rng.integers(spare + 1 if spare >= 0 else 2 * series.size)
        first, last = _layer_time_windows(rng, self._shape, self._structure)
        times = np.arange(math.floor(first.min()), math.ceil(last.max()) + 1)
        lateral = _lateral_change(rng, times.size, self._shape[1], self._structure)
        layers = _mirrored(series, start + times)[:, None] * lateral
        return {"signal": _normalised(_place(times, layers, first, last))[..., None]}


def _logged_part(path: str | Path, well: str, interval_s: float) -> np.ndarray:
    series = well_reflectivity(path, well, interval_s=interval_s).reflectivity
    magnitude = np.abs(series)
    if magnitude.max() < _ROUNDING:
        raise ValueError(f"{path}: well {well!r} has constant impedance: no layer to show")
    return series[np.argmax(magnitude >= _TREND * magnitude.max()) :]


def _mirrored(series: np.ndarray, positions: np.ndarray) -> np.ndarray:
    there_and_back = np.concatenate([series, -series[::-1]])
    return there_and_back[positions % there_and_back.size]


def velocity_reflectivity(path: str | Path, *, interval_s: float = 0.004) -> np.ndarray:
    """Turn a velocity model in depth into a reflectivity section in two-way time.

    In every trace, velocity v is averaged over each interval of two-way time (the depth passed in
    it), and r_k = (ln v_{k+1} - ln v_k) / 2, the reflection coefficient to first order where
    density is constant.

    Args:
        path: archive with `velocity_km_s` `(depth, distance)` and `z_m` `(depth,)`.
        interval_s: sampling interval in seconds, above zero.

    Returns:
        `(time, traces)` float32, as long as the shortest trace; time zero is the model's top.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not as above, or spans less than two intervals.
    """
    _check_interval(interval_s)
    arrays = load_arrays(path, keys=["velocity_km_s", "z_m"])
    velocity = 1e3 * _as_float64(path, "velocity_km_s", arrays["velocity_km_s"], ndim=2)
    depth = _as_float64(path, "z_m", arrays["z_m"], ndim=1)
    if velocity.shape[0] != depth.size or velocity.shape[1] == 0 or not (velocity > 0).all():
        raise ValueError(
            f"{path}: 'velocity_km_s' has shape {velocity.shape} with {depth.size} depths in "
            "'z_m'; accepted: velocities above zero, (depth, distance)"
        )
    thickness = _thickness(f"{path}: 'z_m'", depth)
    traces = [_time_average(v, 2 * thickness / v, interval_s) for v in velocity.T]
    num_intervals = min(trace.size for trace in traces)
    if num_intervals < 2:
        raise ValueError(
            f"{path}: the shortest trace has {num_intervals} intervals of interval_s={interval_s}; "
            "at least 2 are expected"
        )
    mean = np.stack([trace[:num_intervals] for trace in traces], axis=1)
    return (np.diff(np.log(mean), axis=0) / 2).astype(np.float32)


def sigmoid_reflectivity(path: str | Path) -> np.ndarray:
    """Read the "sigmoid" section: a synthetic earth with truncations and a fault.

    Args:
        path: archive with `reflectivity` `(traces, time)`.

    Returns:
        `(time, traces)` float32, amplitudes as found.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not as above.
    """
    section = load_arrays(path, keys=["reflectivity"])["reflectivity"]
    return np.ascontiguousarray(_traces_by_time(path, "reflectivity", section).T)


def post_stack_section(path: str | Path) -> dict[str, np.ndarray]:
    """Read a recorded, stacked section. What lies beneath it is not known: there is no truth.

    Args:
        path: archive with `seismic` `(traces, time)`, `time_ms` `(time,)` and `crossline`
            `(traces,)`.

    Returns:
        `measurement`: `(time, traces, 1)` float32, divided by the section's largest absolute
        value; `time_ms`: `(time,)` float32, milliseconds; `crossline`: `(traces,)` int32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not as above.
    """
    arrays = load_arrays(path, keys=["seismic", "time_ms", "crossline"])
    section = _traces_by_time(path, "seismic", arrays["seismic"])
    time_ms = as_float32(path, "time_ms", arrays["time_ms"])
    crossline = as_float32(path, "crossline", arrays["crossline"]).astype(np.int32)
    if section.shape != crossline.shape + time_ms.shape:
        raise ValueError(
            f"{path}: 'seismic' has shape {section.shape} with {crossline.shape} in 'crossline' "
            f"and {time_ms.shape} in 'time_ms'; accepted: (traces, time)"
        )
    measurement = np.ascontiguousarray(_normalised(section).T)[..., None]
    return {"measurement": measurement, "time_ms": time_ms, "crossline": crossline}


def _traces_by_time(path: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    section = as_float32(path, key, array)
    if section.ndim != 2 or section.size == 0:
        raise ValueError(
            f"{path}: {key!r} has shape {section.shape}; accepted: (traces, time), not empty"
        )
    return section


class PatchSource:
    """Windows of one large section.

    Args:
        section: `(time, traces)`, real numbers.
        shape: `(time, traces)` of a window, no larger than `section`.
        key: name of the window in the items, `"signal"` or `"measurement"`.
        num_patches: this many windows at random places, or `None`.
        stride: windows at every `(time, traces)` step from the corner, as many as fit, or
            `None`. One of the two must be given.
        seed: not negative; the place of window i depends on `(seed, i)` only. Read with
            `num_patches`.
        normalise: divide every window by its own largest absolute value; a window of zeros stays.

    Items:
        `key`: `(time, traces, 1)` float32.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        section: np.ndarray,
        shape: tuple[int, int],
        *,
        key: Literal["signal", "measurement"] = "signal",
        num_patches: int | None = None,
        stride: tuple[int, int] | None = None,
        seed: int = 0,
        normalise: bool = False,
    ):
        if key not in ("signal", "measurement"):
            raise ValueError(f"key={key!r} is not accepted: 'signal' or 'measurement' is expected")
        if (num_patches is None) == (stride is None):
            raise ValueError(
                f"num_patches={num_patches} with stride={stride} is not accepted: exactly one of "
                "them is expected"
            )
        self._section = as_float32("PatchSource", "section", np.asarray(section))
        self._shape = _checked_shape(shape)
        self._key = key
        self._normalise = normalise
        room = _room(self._section.shape, self._shape)
        if num_patches is not None:
            count = checked_count("num_patches", num_patches)
            self._corners = _random_corners(room, count, checked_seed(seed))
        else:
            self._corners = _regular_corners(room, _checked_shape(stride, "stride"))

    def __len__(self) -> int:
        return len(self._corners)

    def __getitem__(self, index: int) -> Example:
        row, column = self._corners[checked_index(index, len(self))]
        window = self._section[row : row + self._shape[0], column : column + self._shape[1]]
        window = _normalised(window) if self._normalise else window.copy()
        return {self._key: window[..., None]}


def _room(section: tuple[int, ...], window: tuple[int, int]) -> tuple[int, int]:
    """Count the places of a window's corner along time and along the traces."""
    if len(section) != 2 or section[0] < window[0] or section[1] < window[1]:
        raise ValueError(
            f"shape={window} with a section of shape {section} is not accepted: "
            "windows no larger than a (time, traces) section are expected"
        )
    return section[0] - window[0] + 1, section[1] - window[1] + 1


def _random_corners(room: tuple[int, int], count: int, seed: int) -> list[tuple[int, int]]:
    streams = (stream(seed, i, Purpose.PATCHES) for i in range(count))
    return [(int(rng.integers(room[0])), int(rng.integers(room[1]))) for rng in streams]


def _regular_corners(room: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, int]]:
    return [(t, x) for t in range(0, room[0], stride[0]) for x in range(0, room[1], stride[1])]


def _checked_shape(shape: object, name: str = "shape") -> tuple[int, int]:
    if not isinstance(shape, Sequence) or len(shape) != 2:
        raise ValueError(f"{name}={shape!r} is not accepted: (time, traces) is expected")
    num_samples, num_traces = (checked_count(f"{name}'s entry", size) for size in shape)
    return num_samples, num_traces


def _check_magnitude(magnitude: float) -> None:
    if not 0 < magnitude < math.inf:
        raise ValueError(f"magnitude={magnitude!r} is not accepted: a number above 0 is expected")


def _check_interval(interval_s: float) -> None:
    if not 0 < interval_s < math.inf:
        raise ValueError(f"interval_s={interval_s!r} is not accepted: seconds above 0 are expected")
