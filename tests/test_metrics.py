"""Metrics against NumPy, and SSIM against its definition written window by window."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOLERANCE, counted, near, normal

from jitter_jax.metrics import METRICS, make_metrics, mse, nmse, psnr, risk, ssim, values_per

SHAPE = (14, 17, 2)


def pair(shape=SHAPE):
    truth = normal(0, *shape)
    return truth + 0.3 * normal(1, *shape), truth


@pytest.mark.parametrize("shape", [(7,), (6, 5), SHAPE])
def test_errors_equal_numpy(shape):
    estimate, truth = pair(shape)
    a, b = (np.asarray(v, np.float64) for v in (estimate, truth))
    near(mse(estimate, truth), np.mean((a - b) ** 2), TOLERANCE["float32"])
    near(risk(estimate, truth), np.sum((a - b) ** 2), TOLERANCE["float32"])
    near(nmse(estimate, truth), np.sum((a - b) ** 2) / np.sum(b**2), TOLERANCE["float32"])
    for peak in (1.0, 2.5):
        expected = 10 * np.log10(peak**2 / np.mean((a - b) ** 2))
        near(psnr(estimate, truth, peak=peak), expected, TOLERANCE["float32"])


def test_psnr_of_known_errors():
    truth = jnp.zeros((3, 4))
    near(psnr(truth + 0.1, truth), 20.0, TOLERANCE["float32"])
    near(psnr(truth - 1, truth), np.array(0.0), 1e25)  # 1e25 * 1e-30: an absolute 1e-5
    assert psnr(truth, truth) == jnp.inf
    # Nothing is clamped: values outside [0, 1] count as they are.
    near(psnr(truth - 10, truth), -20.0, TOLERANCE["float32"])


def ssim_by_definition(estimate, truth, data_range, mirrored):
    """Wang et al. (2004), one window at a time in float64."""
    t = np.arange(11) - 5
    window = np.exp(-(t**2) / (2 * 1.5**2))
    window = np.outer(window, window)[..., None] / window.sum() ** 2
    a, b = (np.asarray(v, np.float64) for v in (estimate, truth))
    if mirrored:
        a, b = (np.pad(v, ((5, 5), (5, 5), (0, 0)), mode="reflect") for v in (a, b))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            u, v = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mean = lambda w: np.sum(window * w, (0, 1))
            mu_u, mu_v = mean(u), mean(v)
            var_u, var_v = mean((u - mu_u) ** 2), mean((v - mu_v) ** 2)
            covariance = mean((u - mu_u) * (v - mu_v))
            values.append(
                (2 * mu_u * mu_v + c1)
                * (2 * covariance + c2)
                / ((mu_u**2 + mu_v**2 + c1) * (var_u + var_v + c2))
            )
    return np.mean(values)


# Local variances are differences of means of squares, which cancel.
SSIM_TOLERANCE = 10 * TOLERANCE["float32"]


@pytest.mark.parametrize("border", ["valid", "reflect"])
@pytest.mark.parametrize("data_range", [1.0, 3.0])
@pytest.mark.parametrize("shape", [(11, 11, 1), SHAPE])
def test_ssim_equals_its_definition(border, data_range, shape):
    estimate, truth = pair(shape)
    expected = ssim_by_definition(estimate, truth, data_range, border == "reflect")
    actual = jax.jit(lambda a, b: ssim(a, b, data_range=data_range, border=border))(estimate, truth)
    np.testing.assert_allclose(actual, expected, atol=SSIM_TOLERANCE)
    assert 0.1 < expected < 0.99


def test_ssim_of_equal_images_is_one_and_of_opposite_contrast_negative():
    _, truth = pair()
    np.testing.assert_allclose(ssim(truth, truth), 1, atol=SSIM_TOLERANCE)
    assert ssim(5 - truth, 5 + truth) < -0.5


def test_borders_differ():
    estimate, truth = pair((12, 12, 1))
    assert abs(ssim(estimate, truth) - ssim(estimate, truth, border="reflect")) > 1e-3


def test_made_metrics_carry_their_settings():
    estimate, truth = pair()
    made = make_metrics(["ssim", "psnr"], peak=2.0, data_range=3.0)
    assert list(made) == ["ssim", "psnr"]
    near(made["psnr"].function(estimate, truth), psnr(estimate, truth, peak=2.0), 1e-6)
    near(made["ssim"].function(estimate, truth), ssim(estimate, truth, data_range=3.0), 1e-6)
    assert made["psnr"].definition["peak"] == 2.0
    assert made["ssim"].definition["data_range"] == 3.0
    assert list(make_metrics(METRICS)) == list(METRICS)
    for name, metric in make_metrics(METRICS).items():
        assert json.loads(json.dumps(metric.definition)) == metric.definition
        assert metric.definition["formula"]
        if name != "ssim":
            np.testing.assert_array_equal(
                metric.function(estimate, truth), globals()[name](estimate, truth)
            )


def test_vmap_jit_and_gradient():
    estimates, truths = pair((3, *SHAPE))

    def all_of(estimate, truth):
        return {name: m.function(estimate, truth) for name, m in make_metrics(METRICS).items()}

    function, traces = counted(jax.vmap(all_of))
    compiled = jax.jit(function)
    values = compiled(estimates, truths)
    compiled(truths, estimates)
    assert len(traces) == 1
    for name, metric in make_metrics(METRICS).items():
        looped = [metric.function(a, b) for a, b in zip(estimates, truths, strict=True)]
        near(values[name], looped, SSIM_TOLERANCE if name == "ssim" else TOLERANCE["float32"])
        assert values[name].dtype == jnp.float32


def test_uniform_window_is_scikit_images():
    """Written window by window: 7x7 pixels, sample covariances, k1 = 0.01 and k2 = 0.03."""
    estimate, truth = pair((9, 10, 1))
    a, b = (np.asarray(v, np.float64)[..., 0] for v in (estimate, truth))
    values = []
    for i in range(3):
        for j in range(4):
            p, q = (v[i : i + 7, j : j + 7].ravel() for v in (a, b))
            (pp, pq), (_, qq) = np.cov(p, q)
            c1, c2 = (0.01 * 2.5) ** 2, (0.03 * 2.5) ** 2
            means = (2 * p.mean() * q.mean() + c1) / (p.mean() ** 2 + q.mean() ** 2 + c1)
            values.append(means * (2 * pq + c2) / (pp + qq + c2))
    near(ssim(estimate, truth, data_range=2.5, window="uniform"), np.mean(values), SSIM_TOLERANCE)


def channels(x):
    return jnp.concatenate([x.real, x.imag], -1) if jnp.iscomplexobj(x) else x


def complex_pair():
    return tuple(normal(seed, 12, 13, 1, dtype="complex64") for seed in (0, 1))


@pytest.mark.parametrize(
    ("part", "of"),
    [
        ("all", lambda x: x),
        ("magnitude", np.abs),
        ("first_channel", np.real),
    ],
)
@pytest.mark.parametrize("full_scale", ["fixed", "signal", "volume"])
def test_part_and_full_scale(part, of, full_scale):
    estimate, truth = complex_pair()
    made = make_metrics(METRICS, peak=2.0, data_range=3.0, part=part, full_scale=full_scale)
    a, b = (jnp.asarray(of(np.asarray(x))) for x in (estimate, truth))
    peak, data_range = {
        "fixed": (2.0, 3.0),
        "signal": (np.abs(truth).max(),) * 2,
        "volume": (7.0, 7.0),
    }[full_scale]
    expected = {
        "psnr": psnr(a, b, peak=peak),
        "ssim": ssim(*map(channels, (a, b)), data_range=data_range),
        "mse": mse(a, b),
        "nmse": nmse(a, b),
        "risk": risk(a, b),
    }
    for name, metric in made.items():
        near(metric.function(estimate, truth, 7.0), expected[name], SSIM_TOLERANCE)
        # Signals that were divided by 4 are measured as they were, unless the scale is fixed.
        if full_scale != "fixed":
            again = metric.function(estimate / 4, truth / 4, 7.0, 4.0)
            near(again, expected[name], SSIM_TOLERANCE)
        assert metric.definition["channel"] == part
    largest = f"largest magnitude of the {full_scale}"
    assert made["psnr"].definition["peak"] == (2.0 if full_scale == "fixed" else largest)


def test_values_of_volumes_are_those_of_their_joined_slices():
    """As fastMRI: PSNR and NMSE of the whole volume, SSIM averaged over its slices."""
    truths, estimates = normal(0, 5, 12, 11, 1), normal(1, 5, 12, 11, 1)
    volume = np.array([4, 4, 9, 9, 9])
    names = ("psnr", "nmse", "ssim")
    made = make_metrics(names, full_scale="volume", per="volume")
    for name, metric in made.items():
        statistics, expected = [], []
        for number in (4, 9):
            members = volume == number
            a, b = np.asarray(estimates)[members], np.asarray(truths)[members]
            peak = np.abs(b).max()
            whole = {
                "psnr": lambda a=a, b=b, p=peak: psnr(a, b, peak=p),
                "nmse": lambda a=a, b=b: nmse(a, b),
                "ssim": lambda a=a, b=b, p=peak: np.mean(
                    [ssim(x, y, data_range=p) for x, y in zip(a, b, strict=True)]
                ),
            }
            expected.append(float(whole[name]()))
            # Every slice was normalised by another number.
            statistics += [
                metric.statistics(x / scale, y / scale, peak, scale)
                for scale, x, y in zip((0.5, 2.0, 3.0), a, b, strict=False)
            ]
        statistics = np.stack(statistics)[:, None]  # one draw
        near(values_per(metric, statistics, volume, "volume"), expected, 1e-5)
        alone = values_per(metric, statistics, volume, "signal")
        assert alone.shape == (5,)
        if name != "ssim":
            assert abs(alone[:2].mean() - expected[0]) > 1e-4
    draws = np.stack([[[1.0], [3.0]], [[5.0], [7.0]]])
    near(values_per(make_metrics(["mse"])["mse"], draws, np.array([0, 1])), [2.0, 6.0], 1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_metrics(["mse"], part="phase"), "metrics.part must be one of"),
        (lambda: make_metrics(["mse"], full_scale="bit"), "metrics.full_scale must be one of"),
        (lambda: make_metrics(["mse"], per="scan"), "metrics.per must be one of"),
        (lambda: make_metrics(["mse"], ssim_window="hann"), "metrics.ssim_window must be one of"),
        (
            lambda: make_metrics(["mse"], per="volume", full_scale="signal"),
            "full_scale='signal' is not accepted with metrics.per='volume'",
        ),
        (lambda: ssim(*pair(), window="hann"), "window must be one of"),
        (lambda: ssim(*pair((6, 20, 1)), window="uniform"), r"at least 7x7 pixels"),
        (lambda: ssim(*pair((10, 20, 1))), r"at least 11x11 pixels, got \(10, 20, 1\)"),
        (lambda: ssim(*pair((20, 10, 1))), r"at least 11x11 pixels, got \(20, 10, 1\)"),
        (lambda: ssim(*pair(), border="wrap"), "border must be 'valid' or 'reflect', got 'wrap'"),
        (lambda: make_metrics(["psnr", "lpips"]), "metric must be one of .*'psnr'.*got 'lpips'"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
