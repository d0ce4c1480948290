import os
from pathlib import Path

import numpy as np
import pytest

from jitter_jax import data

REAL = (
    Path(
        os.environ.get("JITTER_JAX_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data"
    )
    / "seismic"
)


def saved(tmp_path, **arrays):
    path = tmp_path / "section.npz"
    np.savez(path, **arrays)
    return path


def real(name):
    if not (REAL / name).exists():
        pytest.skip(f"no real data at {REAL / name}")
    return REAL / name


def velocity_model(tmp_path, **changes):
    # At 2 km/s a step of 4 m takes 4 ms there and back, at 4 km/s 2 ms.
    velocity = np.full((60, 3), 2.0)
    velocity[20:, 1] = 4.0
    velocity[30:, 2] = 1.0
    return saved(
        tmp_path, **{"velocity_km_s": velocity, "z_m": 800 + 4.0 * np.arange(60), **changes}
    )


def test_a_velocity_step_has_the_known_time_and_coefficient(tmp_path):
    reflectivity = data.velocity_reflectivity(velocity_model(tmp_path))
    assert reflectivity.dtype == np.float32
    # The middle trace is the shortest: 20 steps of 4 ms and 40 of 2 ms, 40 intervals.
    expected = np.zeros((39, 3))
    expected[19, 1] = np.log(2) / 2
    expected[29, 2] = -np.log(2) / 2
    np.testing.assert_allclose(reflectivity, expected, atol=1e-6)


def test_velocity_between_borders_is_depth_over_time(tmp_path):
    path = velocity_model(tmp_path)
    reflectivity = data.velocity_reflectivity(path, interval_s=0.012)
    # Interval 6 of the middle trace is 8 ms of 2 km/s and 4 ms of 4 km/s.
    mixed = (2 * 2 + 4) / 3
    np.testing.assert_allclose(reflectivity[5, 1], np.log(mixed / 2) / 2, rtol=1e-5)
    np.testing.assert_allclose(reflectivity[6, 1], np.log(4 / mixed) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_m": np.arange(59.0)}, "59 depths"),
        ({"z_m": np.zeros(60)}, "do not increase"),
        ({"velocity_km_s": np.zeros((60, 3))}, "above zero"),
        ({"velocity_km_s": np.full((60, 3), np.nan)}, "above zero"),
        ({"velocity_km_s": np.ones(60)}, "2 axes"),
        ({"velocity_km_s": np.ones((60, 3)) * 1j}, "complex128"),
        ({"velocity_km_s": np.full((60, 3), 1e5)}, "0 intervals"),
    ],
)
def test_bad_velocity_models(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"section\.npz.*{message}"):
        data.velocity_reflectivity(velocity_model(tmp_path, **changes))


def test_sigmoid_puts_time_first(tmp_path):
    stored = np.arange(6, dtype=np.float32).reshape(2, 3)
    section = data.sigmoid_reflectivity(saved(tmp_path, reflectivity=stored))
    np.testing.assert_array_equal(section, stored.T)
    assert section.flags.c_contiguous


def post_stack(tmp_path, **changes):
    arrays = {
        "seismic": np.array([[0, -200, 30], [0, 100, 5]], np.int16),
        "time_ms": np.array([0, 4, 8], np.float32),
        "crossline": np.array([300, 301], np.int16),
    }
    return saved(tmp_path, **{**arrays, **changes})


def test_post_stack_section(tmp_path):
    section = data.post_stack_section(post_stack(tmp_path))
    assert sorted(section) == ["crossline", "measurement", "time_ms"]
    expected = np.float32([[0, 0], [-1, 0.5], [0.15, 0.025]])
    np.testing.assert_array_equal(section["measurement"], expected[..., None])
    assert section["measurement"].dtype == section["time_ms"].dtype == np.float32
    np.testing.assert_array_equal(section["time_ms"], [0, 4, 8])
    np.testing.assert_array_equal(section["crossline"], [300, 301])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_ms": np.arange(2)}, r"\(2, 3\) with \(2,\) in 'crossline' and \(2,\)"),
        ({"seismic": np.zeros((2, 3, 1))}, "'seismic' has shape"),
        ({"seismic": np.zeros((0, 3))}, "not empty"),
        ({"seismic": np.full((2, 3), np.nan)}, "6 of 6 values"),
    ],
)
def test_bad_post_stack_sections(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"section\.npz.*{message}"):
        data.post_stack_section(post_stack(tmp_path, **changes))


@pytest.mark.parametrize(
    "read", [data.velocity_reflectivity, data.sigmoid_reflectivity, data.post_stack_section]
)
def test_a_file_without_the_keys_or_without_a_file(tmp_path, read):
    with pytest.raises(ValueError, match=r"section\.npz: has no array .*it holds \['other'\]"):
        read(saved(tmp_path, other=np.ones(3)))
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        read(tmp_path / "absent.npz")


def test_real_velocity_model():
    path = real("velocity_model.npz")
    reflectivity = data.velocity_reflectivity(path)
    assert reflectivity.shape == (375, 600)
    assert np.abs(reflectivity).max() == pytest.approx(0.3205, abs=1e-3)
    assert np.mean(np.abs(reflectivity) < 0.01) > 0.8


def test_real_sigmoid():
    section = data.sigmoid_reflectivity(real("sigmoid.npz"))
    assert section.shape == (200, 256)
    assert (section.min(), section.max()) == pytest.approx((-0.005104, 0.004734), abs=1e-6)


def test_real_post_stack_section():
    section = data.post_stack_section(real("f3_inline362.npz"))
    measurement = section["measurement"]
    assert measurement.shape == (463, 951, 1)
    assert measurement.min() == -1
    assert measurement.max() == pytest.approx(15762 / 20567)
    assert not measurement[:13].any()
    assert section["time_ms"][-1] == 1848 and section["crossline"][-1] == 1250
    patches = data.PatchSource(
        measurement[..., 0], (352, 352), key="measurement", stride=(111, 599)
    )
    assert len(patches) == 4
    np.testing.assert_array_equal(patches[3]["measurement"], measurement[111:, 599:])
