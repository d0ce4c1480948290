import functools
import time

import numpy as np
import pytest

from jitter_jax.data.textures import Textures, texture

SHAPES = [(16, 16), (64, 64), (17, 90), (90, 17), (65, 63)]


@functools.cache
def drawn(count=40, seed=0, shape=(128, 128)):
    source = Textures(count, seed, shape)
    return [source[i]["signal"][..., 0] for i in range(count)]


def decay(image):
    """Exponent of the power spectrum's fall, from a tenth of the largest frequency to all of it."""
    height, width = image.shape
    # Without a window the jump between opposite borders adds a spectrum of its own.
    window = np.outer(np.hanning(height), np.hanning(width))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    rings = (40 * np.hypot(rows[:, None], columns)).astype(int)
    mean = np.bincount(rings.ravel(), power.ravel()) / np.bincount(rings.ravel())
    used = np.arange(2, 19)
    return np.polyfit(np.log(used + 0.5), np.log(mean[used]), 1)[0]


def kurtosis(image, axis):
    gradient = np.diff(image, axis=axis)
    centred = gradient - gradient.mean()
    return np.mean(centred**4) / np.mean(centred**2) ** 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(8))
def test_values_are_in_range_and_have_contrast(shape, seed):
    signal = Textures(1, seed, shape)[0]["signal"]
    assert signal.shape == (*shape, 1) and signal.dtype == np.float32
    assert signal.min() >= 0 and signal.max() <= 1
    assert 0.25 < signal.mean() < 0.65 and 0.1 < signal.std() < 0.27


def test_examples_depend_on_seed_and_index_only():
    source, longer = Textures(5, 7, (40, 30)), Textures(50, 7, (40, 30))
    backwards = [longer[i]["signal"] for i in reversed(range(5))][::-1]
    assert len(source) == 5
    for i in range(5):
        assert list(source[i]) == ["signal"]
        np.testing.assert_array_equal(source[i]["signal"], backwards[i])
    with pytest.raises(IndexError, match="index=5"):
        source[5]


def test_examples_and_seeds_differ():
    images = drawn(3, 0, (48, 48)) + drawn(3, 1, (48, 48))
    correlations = np.abs(np.corrcoef([image.ravel() for image in images]) - np.eye(6))
    assert correlations.max() < 0.6


def test_numpys_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - its absence is what is tested
    Textures(1, 0, (32, 32))[0]
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_spectra_fall_as_those_of_photographs():
    # Of 100 pictures of Train400 by the same measure: -2.6 on average, from -5.0 to -1.3.
    falls = [decay(image) for image in drawn()]
    assert -3.2 < np.mean(falls) < -2.2
    assert np.min(falls) > -5 and np.max(falls) < -1.2 and np.std(falls) > 0.3


@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_are_heavy_tailed(axis):
    # A normal distribution has 3; 100 pictures of Train400 have 13 at the median, 4 at the least.
    found = [kurtosis(image, axis) for image in drawn()]
    assert np.min(found) > 4 and 7 < np.median(found) < 20


def test_edges_run_in_all_directions():
    down, right = (np.mean([np.abs(np.diff(i, axis=a)).mean() for i in drawn()]) for a in (0, 1))
    assert 0.8 < down / right < 1.25


def test_few_values_are_clipped():
    assert np.mean([(image == 0) | (image == 1) for image in drawn()]) < 0.05


@pytest.mark.parametrize(("side", "most"), [(64, 0.010), (256, 0.150)])
def test_drawing_is_quick(side, most):
    rng, spent = np.random.default_rng(0), []
    for _ in range(10):
        start = time.thread_time()
        texture(rng, (side, side))
        spent.append(time.thread_time() - start)
    # Of this thread alone, and the quickest, so that other work does not count; and thrice the
    # time, because machines differ.
    assert min(spent) < 3 * most


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0, (32, 32)), "count=0"),
        ((1, -1, (32, 32)), "seed=-1"),
        ((1, 0, (32, 15)), r"shape=\(32, 15\) .*at least 16"),
        ((1, 0, (32,)), r"shape=\(32,\) .*\(height, width\)"),
        ((1, 0, 32), "shape=32"),
        ((1, 0, (32.0, 32)), r"shape's entry=32\.0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Textures(*arguments)
