"""K-space of many coils to images, as `bin/reconstruct` takes it."""

import jax
import numpy as np
import pytest
from fastmri_files import write_fastmri_file
from tiny_runs import tiny_config, write_run

from jitter_jax import experiment as experiments
from jitter_jax.commands.reconstruct import reconstruct_file
from jitter_jax.commands.runs import load_trained
from jitter_jax.data import espirit_maps
from jitter_jax.data.pipeline import evaluation_batches
from jitter_jax.operators import sense

UNIT = 3e-5  # the file's, beside the normalised one


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Smoothed in every step."""
    return write_run(tmp_path_factory.mktemp("runs") / "smoothed", tiny_config("step"))


@pytest.fixture(scope="module")
def recorded():
    """Two test signals: k-space `(2, coils, height, width)`, masks and maps."""
    experiment = experiments.build(tiny_config())
    batch = experiment.measure(next(evaluation_batches(experiment.sources["test"], 2)), "test")
    mask, maps = (np.asarray(operator.leaves) for operator in batch.operator.leaves)
    coils_first = lambda array: np.moveaxis(np.asarray(array), -1, 1)
    kspace = UNIT * coils_first(batch.measurement)
    return batch, {"kspace": kspace, "mask": mask, "maps": coils_first(maps)}


def test_is_the_reconstruction_of_the_measurement(run, recorded, tmp_path):
    batch, arrays = recorded
    trained = load_trained(run)
    # The average over noise differs a little from that of other draws.
    expected = jax.jit(trained.reconstructor.apply)(
        trained.params,
        batch.operator_of(1),
        batch.measurement[1],
        smoothing_key=jax.random.key(7),
    )
    size = np.abs(expected).max()
    shared = {**arrays, "maps": arrays["maps"][0], "mask": arrays["mask"][0]}
    found = {name: arrays[name] for name in ("kspace", "maps")}
    turned = {name: np.swapaxes(array, -1, -2) for name, array in arrays.items()}
    estimates = []
    for given, options in ((arrays, {}), (shared, {}), (found, {}), (turned, {"transpose": True})):
        np.savez(tmp_path / "y.npz", **given)
        estimates.append(reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out", **options))
        assert estimates[-1].shape == (2, 16, 16, 1) and estimates[-1].dtype == np.complex64
        np.testing.assert_allclose(estimates[-1][1] / UNIT, expected, rtol=0, atol=0.05 * size)
    for other in estimates[1:]:  # the seed is the same
        np.testing.assert_allclose(other, estimates[0], rtol=0, atol=1e-4 * UNIT)
    reseeded = reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out", transpose=True, seed=1)
    assert np.abs(reseeded - estimates[0]).max() > 1e-4 * UNIT
    assert (tmp_path / "out.png").stat().st_size > 1000
    # One signal has no first axis.
    np.savez(tmp_path / "y.npz", **{name: array[0] for name, array in arrays.items()})
    single = reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out")
    np.testing.assert_allclose(single[0], estimates[0][0], rtol=0, atol=1e-4 * UNIT)


def test_maps_are_estimated_where_they_are_not_known(run, recorded, tmp_path):
    """By ESPIRiT, as if those maps were in the file."""
    pytest.importorskip("sigpy")
    batch, arrays = recorded
    maps = np.moveaxis(arrays["maps"][0], 0, -1)
    full = np.asarray(sense(np.ones((16, 16), bool), maps).forward(batch.signal[0]))
    kspace = np.moveaxis(full, -1, 0)
    np.savez(tmp_path / "y.npz", kspace=kspace)
    found = reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out", num_calibration=16)
    estimated = np.moveaxis(espirit_maps(full, 16), -1, 0)
    np.savez(tmp_path / "known.npz", kspace=kspace, maps=estimated)
    known = reconstruct_file(run, tmp_path / "known.npz", tmp_path / "out")
    np.testing.assert_allclose(found, known, rtol=0, atol=1e-5 * np.abs(known).max())
    with pytest.raises(ValueError, match="num_calibration=24"):
        reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out")  # the run's
    np.savez(tmp_path / "y.npz", kspace=arrays["kspace"])
    with pytest.raises(ValueError, match="are zero in every coil"):
        reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out", num_calibration=16)


def test_refused(run, recorded, tmp_path):
    _, arrays = recorded
    for change, message in (
        ({"kspace": arrays["kspace"][0, 0]}, "'kspace' has shape"),
        ({"maps": 2 * arrays["maps"]}, "sum of squares"),
        ({"maps": arrays["maps"][:, :1]}, "maps has shape"),
        ({"maps": np.concatenate([arrays["maps"]] * 2)}, "maps of 4 slices beside 2"),
        ({"mask": arrays["mask"][:, :5]}, "'mask' has shape"),
        ({"more": arrays["kspace"]}, "--key"),
    ):
        np.savez(tmp_path / "y.npz", **{**arrays, **change})
        with pytest.raises(ValueError, match=message):
            reconstruct_file(run, tmp_path / "y.npz", tmp_path / "out")
    write_fastmri_file(tmp_path / "volume.h5", num_slices=1, shape=(16, 16), test_set=True)
    with pytest.raises(ValueError, match="k-space of a single coil;"):
        reconstruct_file(run, tmp_path / "volume.h5", tmp_path / "out")
    assert not (tmp_path / "out.npz").exists()
