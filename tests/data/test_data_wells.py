import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from jitter_jax import data

STEP_M = 0.5
UPPER, LOWER = (500.0, 4.0e6), (250.0, 9.0e6)  # sonic us/m, impedance m/s kg/m3
REAL = Path(
    os.environ.get("JITTER_JAX_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
)


def logs(*layers):
    """Logs of ``(samples, (sonic, impedance))`` layers, 0.5 m a sample."""
    sonic = np.concatenate([np.full(n, rock[0]) for n, rock in layers])
    impedance = np.concatenate([np.full(n, rock[1]) for n, rock in layers])
    return {"depth_m": 100 + STEP_M * np.arange(sonic.size), "sonic": sonic, "impedance": impedance}


def saved(tmp_path, **wells):
    path = tmp_path / "wells.npz"
    arrays = {f"{well}_{log}": a for well, logs in wells.items() for log, a in logs.items()}
    np.savez(path, **{key: np.asarray(a, np.float32) for key, a in arrays.items()})
    return path


def test_two_layers_have_the_known_time_and_coefficient(tmp_path):
    # 160 samples of 0.5 m at 500 us/m are 80 ms there and back; 320 at 250 us/m as many.
    path = saved(tmp_path, A_1=logs((160, UPPER), (320, LOWER)))
    time_s, reflectivity = data.well_reflectivity(path, "A-1")
    assert time_s.dtype == reflectivity.dtype == np.float32
    np.testing.assert_allclose(time_s, 0.004 * np.arange(1, 40), rtol=1e-6)
    (border,) = np.flatnonzero(np.abs(reflectivity) > 1e-6)
    assert time_s[border] == np.float32(0.08)
    assert reflectivity[border] == np.float32(5 / 13)


@pytest.mark.parametrize(("interval_s", "size", "border"), [(0.002, 79, 39), (0.01, 15, 7)])
def test_the_interval_is_free(tmp_path, interval_s, size, border):
    path = saved(tmp_path, A=logs((160, UPPER), (320, LOWER)))
    _, reflectivity = data.well_reflectivity(path, "A", interval_s=interval_s)
    assert reflectivity.size == size
    assert reflectivity[border] == np.float32(5 / 13)


def test_a_border_inside_an_interval_is_shared_by_its_two_ends(tmp_path):
    # 162 samples end 1 ms into an interval of 4 ms, which is a quarter one rock.
    path = saved(tmp_path, A=logs((162, UPPER), (320, LOWER)))
    _, reflectivity = data.well_reflectivity(path, "A")
    mixed = (4e6 + 3 * 9e6) / 4
    np.testing.assert_allclose(reflectivity[19], (mixed - 4e6) / (mixed + 4e6), rtol=1e-6)
    np.testing.assert_allclose(reflectivity[20], (9e6 - mixed) / (9e6 + mixed), rtol=1e-6)
    # To all orders, what enters a pile of layers leaves it: the artanh of the coefficients add up.
    np.testing.assert_allclose(np.arctanh(reflectivity).sum(), np.log(9 / 4) / 2, rtol=1e-6)


def test_detail_finer_than_the_interval_does_not_alias(tmp_path):
    fine = logs((800, UPPER))
    fine["impedance"][::2] *= 1.5
    fine["sonic"][::3] *= 1.01
    _, reflectivity = data.well_reflectivity(saved(tmp_path, A=fine), "A")
    # Picked samples would differ by 50 %, hence coefficients of 0.2.
    assert 0 < np.abs(reflectivity).max() < 0.04


def test_missing_ends_are_cut_and_short_gaps_filled(tmp_path):
    whole = logs((160, UPPER), (320, LOWER))
    gaps = {name: log.copy() for name, log in whole.items()}
    for gap in (slice(40, 46), slice(300, 304)):
        gaps["impedance"][gap] = np.nan
    gaps["sonic"][200:205] = np.nan
    padding = np.full(7, np.nan)
    padded = {name: np.concatenate([padding, log, padding]) for name, log in gaps.items()}
    padded["depth_m"] = 50 + STEP_M * np.arange(494)
    expected = data.well_reflectivity(saved(tmp_path, A=whole), "A")
    filled = data.well_reflectivity(saved(tmp_path, A=padded), "A")
    np.testing.assert_allclose(filled.reflectivity, expected.reflectivity, atol=1e-6)
    np.testing.assert_array_equal(filled.time_s, expected.time_s)


def test_a_gap_is_filled_by_a_straight_line(tmp_path):
    rising = logs((400, UPPER))
    rising["impedance"] = 4e6 * (1 + np.arange(400) / 400)
    gap = {name: log.copy() for name, log in rising.items()}
    gap["impedance"][100:108] = np.nan
    with_gap, without = (
        data.well_reflectivity(saved(tmp_path, A=log), "A").reflectivity for log in (gap, rising)
    )
    np.testing.assert_allclose(with_gap, without, rtol=1e-5)


def changed(name, where, value):
    log = logs((160, UPPER), (320, LOWER))
    log[name][where] = value
    return log


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (changed("sonic", slice(100, 120), np.nan), "largest step is 10.5 m"),
        (changed("impedance", slice(5, 475, 7), np.nan), "lacks 14"),
        (changed("impedance", slice(None), np.nan), "0 samples"),
        (changed("sonic", slice(None), 80.0), "median sonic \\* impedance"),
        (changed("impedance", slice(None), 9e3), "median sonic \\* impedance"),
        (changed("sonic", 3, 0.0), "not above zero"),
        (changed("impedance", 3, -1.0), "not above zero"),
        (changed("depth_m", 3, 0.0), "do not increase"),
        (logs((10, UPPER)), "spans 0.005 s"),
        ({**logs((160, UPPER)), "sonic": np.ones(5)}, r"\[160, 5, 160\] samples"),
        ({**logs((160, UPPER)), "sonic": np.ones((160, 1))}, "'A_sonic' is float32 with shape"),
    ],
)
def test_bad_logs(tmp_path, log, message):
    with pytest.raises(ValueError, match=rf"wells\.npz.*{message}"):
        data.well_reflectivity(saved(tmp_path, A=log), "A")


def test_an_unknown_well_is_told_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"'B_depth_m'; it holds \['A_depth_m'"):
        data.well_reflectivity(saved(tmp_path, A=logs((160, UPPER))), "B")


@pytest.mark.parametrize("interval_s", [0, -0.004, np.nan])
def test_bad_interval(tmp_path, interval_s):
    with pytest.raises(ValueError, match="interval_s="):
        data.well_reflectivity(saved(tmp_path, A=logs((160, UPPER))), "A", interval_s=interval_s)


def layered_log(seed, num_intervals):
    """A log whose every interval of 4 ms (8 samples) is a layer of its own."""
    impedance = 4e6 * np.exp(np.random.default_rng(seed).normal(0, 0.1, num_intervals))
    return logs(*[(8, (500.0, z)) for z in impedance])


def well_sections(path, wells=("A",), num=4, seed=0, shape=(60, 20), **options):
    return data.WellSections(path, wells, num, seed, shape, **options)


def test_flat_well_sections_are_windows_of_the_log(tmp_path):
    path = saved(tmp_path, A=layered_log(0, 100))
    series = data.well_reflectivity(path, "A").reflectivity
    source = well_sections(path, num=12, structure=data.FLAT)
    starts = set()
    for i in range(12):
        trace = source[i]["signal"][:, 0, 0]
        windows = np.lib.stride_tricks.sliding_window_view(series, 60)
        windows = windows / np.abs(windows).max(axis=1, keepdims=True)
        distance = np.abs(windows - trace).max(axis=1)
        assert distance.min() < 1e-6
        starts.add(int(distance.argmin()))
        np.testing.assert_array_equal(source[i]["signal"], np.tile(trace[:, None, None], (20, 1)))
    assert len(starts) > 5


def test_layers_go_to_the_nearest_sample(tmp_path):
    path = saved(tmp_path, A=layered_log(0, 100))
    dipping = dataclasses.replace(data.FLAT, dip=0.12)
    for i in range(4):
        section = well_sections(path, shape=(60, 81), structure=dipping)[i]["signal"][..., 0]
        # In the middle trace the layers lie on samples, so they leave them as soon to the left as
        # to the right; the exact half may go either way.
        (same,) = np.flatnonzero((section == section[:, 40:41]).all(axis=0))[[0, -1]].reshape(1, 2)
        assert same[0] > 0
        assert abs(80 - same.sum()) <= 1


def test_a_short_log_is_mirrored(tmp_path):
    path = saved(tmp_path, A=layered_log(0, 20))
    series = data.well_reflectivity(path, "A").reflectivity
    trace = well_sections(path, structure=data.FLAT)[0]["signal"][:, 0, 0]
    period = 2 * series.size
    np.testing.assert_allclose(trace[period:], trace[:-period], atol=1e-7)
    there_and_back = np.concatenate([series, -series[::-1]])
    shifted = [np.roll(there_and_back, i) for i in range(period)]
    expected = np.stack(shifted) / np.abs(series).max()
    assert np.abs(expected - trace[:period]).max(axis=1).min() < 1e-6


def test_the_trend_above_the_logged_part_is_left_out(tmp_path):
    log = layered_log(0, 30)
    trend = logs(*[(8, (500.0, log["impedance"][0]))] * 50)
    both = {name: np.concatenate([trend[name], log[name]]) for name in log}
    both["depth_m"] = STEP_M * np.arange(both["sonic"].size)
    flat = {"structure": data.FLAT, "shape": (29, 1)}
    with_trend = well_sections(saved(tmp_path, A=both), **flat)[0]["signal"]
    without = well_sections(saved(tmp_path, A=log), **flat)[0]["signal"]
    np.testing.assert_allclose(with_trend, without, atol=1e-6)


@pytest.mark.parametrize("shape", [(60, 20), (33, 17), (1, 1), (150, 3)])
def test_well_sections_repeat_and_differ(tmp_path, shape):
    path = saved(tmp_path, A=layered_log(0, 100), B=layered_log(1, 90))
    one, again, other = (well_sections(path, ("A", "B"), seed=s, shape=shape) for s in (0, 0, 1))
    assert len(one) == 4
    for i in range(4):
        item = one[i]["signal"]
        assert item.shape == (*shape, 1) and item.dtype == np.float32
        assert np.abs(item).max() == 1
        np.testing.assert_array_equal(item, again[i]["signal"])
        if shape != (1, 1):
            assert not np.array_equal(item, other[i]["signal"])
            assert not np.array_equal(item, one[(i + 1) % 4]["signal"])


def test_each_example_draws_a_well(tmp_path):
    path = saved(tmp_path, A=layered_log(0, 61), B=layered_log(1, 61))
    source = well_sections(path, ("A", "B"), num=16, structure=data.FLAT)
    assert len({source[i]["signal"].tobytes() for i in range(16)}) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wells": ()}, r"wells=\(\)"),
        ({"wells": "A"}, "wells='A'"),
        ({"num": 0}, "num_sections=0"),
        ({"seed": -1}, "seed=-1"),
        ({"shape": (3, 0)}, "shape"),
        ({"wells": ("flat",)}, "constant impedance"),
    ],
)
def test_bad_well_sections(tmp_path, options, message):
    path = saved(tmp_path, A=layered_log(0, 30), flat=logs((160, UPPER)))
    with pytest.raises(ValueError, match=message):
        well_sections(path, **options)


@pytest.mark.parametrize(
    ("well", "size", "largest"),
    [("F02-1", 358, 0.1587), ("F03-2", 456, 0.1976), ("F03-4", 441, 0.1168)],
)
def test_real_wells(well, size, largest):
    path = REAL / "seismic" / "f3_wells.npz"
    if not path.exists():
        pytest.skip(f"no real logs at {path}")
    time_s, reflectivity = data.well_reflectivity(path, well)
    assert reflectivity.size == size
    assert np.abs(reflectivity).max() == pytest.approx(largest, abs=1e-4)
    name = well.replace("-", "_")
    with np.load(path, allow_pickle=False) as arrays:
        sonic, impedance = (arrays[f"{name}_{log}"].astype("f8") for log in ("sonic", "impedance"))
    known = np.isfinite(sonic)
    clock = np.cumsum(2e-6 * 0.15 * sonic[known])
    assert time_s[-1] + 0.004 == pytest.approx(clock[-1], abs=0.005)
    # The sum of artanh(r) is half the growth of ln Z between the first and the last interval.
    first = impedance[known][clock < 0.004].mean()
    last = impedance[known][(clock >= time_s[-1]) & (clock < time_s[-1] + 0.004)].mean()
    assert np.arctanh(reflectivity.astype("f8")).sum() == pytest.approx(
        np.log(last / first) / 2, abs=0.005
    )
    item = well_sections(path, (well,), shape=(352, 64))[0]["signal"]
    assert np.abs(item).max() == 1 and np.mean(item != 0) > 0.9
