"""Floating-point operations of convolutions and matrix products, counted by hand.

What is computed again to save memory does not count, nor do transforms and normalisations.
"""

from collections.abc import Sequence

from jitter_jax.bench.cases import Case, Plain


def passes(case: Case, config: Plain) -> float:
    """Return how many reconstructions of the batch a case is worth.

    A derivative with respect to the input is worth one, and one with respect to the parameters
    another.

    Args:
        case: the case.
        config: its config.
    """
    scheme = config["scheme"]
    num_steps = scheme["adversarial"]["attack"]["num_steps"]
    if case.kind == "train":
        # The zero perturbation and the last point are evaluated beside the steps.
        attacked = 2 * num_steps + 2 + 3
        num_iterations = config["unroll"]["num_iterations"]
        smt_grad, stability = scheme["smt_grad"], config["smoothing"]["num_samples"]
        by_scheme = {
            "adversarial": attacked,
            "smt_adv": scheme["smt_adv"]["num_samples"] * attacked,
            "smt_grad": smt_grad["num_levels"] * smt_grad["num_samples"] * 3,
            # J v and J^T u in each step and once after; u^T J v is then differentiated.
            "jacobian": 3 + 2 * (scheme["jacobian"]["num_iterations"] + 1) + 5,
            # The learned step of every copy, and of the truth once.
            "unrolled_stability": 3 * (stability + 1 / num_iterations),
        }
        return by_scheme.get(case.scheme, 3)
    draws = config["smoothing"]["num_samples"] + 1  # and the reference
    by_kind = {
        "pgd": 2,
        "attack": 2 * num_steps + 2,
        "inference": 1,
        "certificate": draws,
        "loop": draws,
    }
    return by_kind[case.kind]


def points_flops(config: Plain) -> float:
    """Return the operations of one reconstruction of the batch; so do the others here."""
    width, depth = config["network"]["width"], config["network"]["depth"]
    layers = [(1, 2, width), *[(1, width, width)] * (depth - 2), (1, width, 2)]
    return _flops(layers, (1, 1), config)


def seismic_flops(config: Plain) -> float:
    """Return those of three convolutions to `width` channels and two to one."""
    hidden = config["network"]["width"]
    kernels = [(3, 2, hidden), (3, hidden, hidden), (3, hidden, hidden), (3, hidden, 1), (1, 1, 1)]
    return _flops(kernels, config["data"]["sections"]["shape"], config)


def dncnn_flops(config: Plain) -> float:
    """Return those of DnCNN, of complex images."""
    hidden, depth = config["network"]["width"], config["network"]["depth"]
    kernels = [(3, 2, hidden), *[(3, hidden, hidden)] * (depth - 2), (3, hidden, 2)]
    return _flops(kernels, config["data"]["images"]["shape"], config)


def didn_flops(config: Plain) -> float:
    """Return those of DIDN, of complex images."""
    w, blocks = config["network"]["width"], config["network"]["depth"]
    levels = (  # by the halvings of height and width, which are padded to a multiple of 8
        [(3, 2, w), (3, w // 4, 2)],
        [*[(3, w, w)] * 2, (1, blocks * w, w), *[*[(3, w, w)] * 5, (1, 2 * w, w)] * blocks],
        [(3, w, 2 * w), *[(3, 2 * w, 2 * w)] * 2, (1, 4 * w, 2 * w), (1, 2 * w, 4 * w)] * blocks,
        [(3, 2 * w, 4 * w), (3, 4 * w, 4 * w), (1, 4 * w, 8 * w)] * blocks,
    )
    height, width = (-(-side // 8) * 8 for side in config["data"]["images"]["shape"])
    return sum(
        _flops(kernels, (height >> halvings, width >> halvings), config)
        for halvings, kernels in enumerate(levels)
    )


def ista_net_pp_flops(config: Plain) -> float:
    """Return those of ISTA-Net++."""
    w, blocks = config["network"]["width"], config["network"]["depth"]
    kernels = [(3, 2, w), *[(3, w, w)] * (2 * blocks), (3, w, 1)]
    return _flops(kernels, config["data"]["images"]["shape"], config)


def dpdnn_flops(config: Plain) -> float:
    """Return those of DPDNN."""
    w, levels = config["network"]["width"], config["network"]["depth"]
    sides = [config["data"]["images"]["shape"]]
    for _ in range(levels):
        sides.append(tuple(-(-side // 2) for side in sides[-1]))
    total = _flops([(3, w, 1)], sides[0], config) + _flops([(3, w, w)], sides[-1], config)
    for level in range(levels):
        first = (3, w if level else 1, w)
        of_level = [first, *[(3, w, w)] * 2, (1, 2 * w, w), *[(3, w, w)] * 4]
        total += _flops(of_level, sides[level], config)
        # Down, and up again, which is computed at the smaller size.
        total += _flops([(3, w, w)] * 2, sides[level + 1], config)
    return total


def _flops(kernels: Sequence[tuple[int, int, int]], shape: tuple[int, int], config: Plain) -> float:
    """Return the operations of convolutions `(size, inputs, outputs)` in all iterations."""
    pixels = config["train"]["batch_size"] * shape[0] * shape[1]
    flops = sum(2 * size**2 * inputs * outputs * pixels for size, inputs, outputs in kernels)
    return float(config["unroll"]["num_iterations"] * flops)
