import numpy as np
import pytest

from jitter_jax import data


@pytest.mark.parametrize("truth", [(0.0, 0.0), data.BIASED_TRUTH])
def test_every_example_is_the_truth(truth):
    source = data.PointSource(200, 0, truth)
    assert len(source) == 200
    assert [list(source[i]) for i in (0, 199)] == [["signal"], ["signal"]]
    assert source[3]["signal"].dtype == np.float32
    np.testing.assert_array_equal(source[199]["signal"], np.float32(truth))


def test_an_item_can_be_changed_without_harm():
    source = data.PointSource(2, 0)
    source[0]["signal"][:] = 9
    np.testing.assert_array_equal(source[0]["signal"], [0, 0])


def test_a_loop_over_the_source_ends():
    assert len(list(data.PointSource(3, 0))) == 3


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match=r"index=-?\d is not accepted.*0\.\.2"):
        data.PointSource(3, 0)[index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "num_points=0"),
        ((2.5, 0), "num_points=2.5"),
        ((True, 0), "num_points=True"),
        ((2, 0, (1.0,)), "truth="),
        ((2, 0, (1.0, np.nan)), "truth="),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.PointSource(*arguments)
