"""One unit for epsilon, sigma and pixels; what cannot be certified is refused with a way out."""

import dataclasses
import math
import re

import numpy as np
import pytest

from jitter_jax.certify import Budget, confidence_each, upper_rank


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0.0}, "sigma must be finite and positive, got 0.0"),
        ({"sigma": -1.0}, "sigma must be finite and positive, got -1.0"),
        ({"sigma": math.nan}, "sigma must be finite and positive, got nan"),
        ({"epsilon": -0.1}, "epsilon must be finite and non-negative, got -0.1"),
        ({"epsilon": math.inf}, "epsilon must be finite and non-negative, got inf"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
        ({"confidence": 0.0}, "confidence must be between 0 and 1, got 0.0"),
        ({"num_samples": 1}, "num_samples must be at least 2, got 1"),
        ({"space": "image"}, r"space must be one of .*'signal'.*, got 'image'"),
        ({"pixel_range": (1.0, 0.0)}, r"pixel_range must be finite and increase, got \(1.0, 0.0\)"),
        # The public code's slip: sigma in 0 to 255.
        ({"sigma": 12.0}, r"sigma=12.0 is wider than all of pixel_range=\(0.0, 1.0\).*0 to 255"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Budget(**({"epsilon": 0.1, "sigma": 0.1} | arguments))


@pytest.mark.parametrize("num_samples", [2, 50, 1000])
@pytest.mark.parametrize("ratio", [1.5, 3.0])
def test_the_way_out_that_a_refusal_names_is_accepted(ratio, num_samples):
    settings = {"sigma": 0.37, "num_samples": num_samples}
    if upper_rank(num_samples, ratio, 0.99) is not None:
        Budget(0.37 * ratio, **settings)
        return
    with pytest.raises(ValueError, match="cannot be certified") as refused:
        Budget(0.37 * ratio, **settings)
    more = int(re.search(r"num_samples=(\d+) would do", str(refused.value))[1])
    Budget(0.37 * ratio, 0.37, num_samples=more)
    with pytest.raises(ValueError, match="cannot be certified"):
        Budget(0.37 * ratio, 0.37, num_samples=more - 1)
    less = re.search(r"epsilon at most (\S+) at this sigma", str(refused.value))
    if num_samples == 2:  # too few even without an attack
        assert less is None and "no epsilon at this num_samples" in str(refused.value)
    else:
        largest = float(less[1])
        Budget(largest, **settings)
        with pytest.raises(ValueError, match="cannot be certified"):
            Budget(largest * 1.001, **settings)


def test_mixed_units_have_no_certificate():
    with pytest.raises(ValueError, match=r"= 212.5 cannot be .* no num_samples would do"):
        Budget(10.0, 12 / 255)


def test_units_are_converted_together():
    budget = Budget(100.0, 80.0, pixel_range=(0, 255), num_samples=500, confidence=0.9)
    unit = budget.in_range(0.0, 1.0)
    np.testing.assert_allclose([unit.epsilon, unit.sigma], [100 / 255, 80 / 255], rtol=1e-15)
    np.testing.assert_allclose(unit.ratio, budget.ratio, rtol=1e-15)
    assert unit.rank() == budget.rank() == upper_rank(500, 1.25, 0.9)
    assert unit.pixel_range == (0.0, 1.0)
    assert (unit.num_samples, unit.confidence, unit.space) == (500, 0.9, "signal")
    symmetric = unit.in_range(-1.0, 1.0)
    np.testing.assert_allclose(symmetric.sigma, 2 * 80 / 255, rtol=1e-15)
    with pytest.raises(ValueError, match="pixel_range=None"):
        dataclasses.replace(budget, pixel_range=None).in_range(0, 1)
    with pytest.raises(ValueError, match=r"got \(1, 1\)"):
        budget.in_range(1, 1)


def test_images_in_another_unit_are_refused():
    budget = Budget(0.1, 0.1)
    budget.check_range(np.linspace(0, 1, 9).reshape(3, 3))
    budget.check_range(np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"from 3 to 255, outside of pixel_range=\(0.0, 1.0\)"):
        budget.check_range(np.array([3, 255]))
    with pytest.raises(ValueError, match=r"from -0\.2 to 0\.5"):
        budget.check_range(np.array([0.5 - 0.2j]))
    with pytest.raises(ValueError, match="finite"):
        budget.check_range(np.array([0.5, np.nan]))
    Budget(1.0, 30.0, pixel_range=None).check_range(np.array([-300.0, 5.0]))


def test_budgets_are_static_arguments():
    assert hash(Budget(0.1, 0.2)) == hash(Budget(0.1, 0.2))
    assert Budget(0.1, 0.2) == Budget(0.1, 0.2)


def test_confidence_of_each_of_a_set():
    assert confidence_each(0.99, 1) == 0.99
    np.testing.assert_allclose(1 - confidence_each(0.95, 100), 5e-4, rtol=1e-9)
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        confidence_each(0.9, 0)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1, got 1"):
        confidence_each(1, 5)
