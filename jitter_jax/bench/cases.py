"""What is timed: the cases, the sizes that they have, and what a worker makes of one.

Neither JAX nor PyTorch is imported here: each belongs in its own workers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

Plain = dict[str, Any]

# Of attacks: the radius relative to the measurement, and a step relative to the radius.
EPSILON, STEP_SIZE = 0.05, 0.125


class Sizes(NamedTuple):
    """Of one batch, of the unroll, and of what a case repeats; None is the problem's or case's own.

    Attributes:
        height: rows of a signal.
        width: columns of a signal.
        batch: signals in a batch.
        iterations: K.
        samples: noisy copies that a smoothed step averages over, or draws of a certificate.
        chunk: copies computed at once; 0 takes all.
        steps: gradient steps of an attack.
        devices: over which the batch is spread.
    """

    height: int | None = None
    width: int | None = None
    batch: int | None = None
    iterations: int | None = None
    samples: int | None = None
    chunk: int | None = None
    steps: int | None = None
    devices: int | None = None

    def or_those_of(self, other: "Sizes") -> "Sizes":
        """Return these sizes, with another's in place of None, and None where that has none."""
        pairs = zip(self, other, strict=True)
        return Sizes(*(theirs if None in (own, theirs) else own for own, theirs in pairs))


class Case(NamedTuple):
    """What is timed.

    Attributes:
        kind: `"train"`, `"pgd"` (one step), `"attack"`, `"inference"`, `"certificate"`, or
            `"loop"`: a certificate by a loop in Python over the draws.
        scheme: of the training step.
        samples: those of `Sizes` where none are asked for; None is a case that draws nothing.
        chunk: likewise.
        steps: likewise.
    """

    kind: str
    scheme: str = "mse"
    samples: int | None = None
    chunk: int | None = None
    steps: int | None = None


CASES = {
    "train_mse": Case("train"),
    "train_adversarial": Case("train", "adversarial", steps=3),
    "train_input_jitter": Case("train", "input_jitter"),
    "train_sgd_jitter": Case("train", "sgd_jitter"),
    "train_spgd_jitter": Case("train", "spgd_jitter"),
    "train_smug": Case("train", "unrolled_stability", samples=10, chunk=0),
    "train_smt_adv": Case("train", "smt_adv", samples=4, chunk=0, steps=3),
    "train_smt_grad": Case("train", "smt_grad", samples=2, chunk=0),
    "train_jacobian": Case("train", "jacobian"),
    "pgd_step": Case("pgd"),
    "attack": Case("attack", steps=10),
    "inference": Case("inference"),
    "certificate": Case("certificate", samples=16, chunk=8),
    "certificate_loop": Case("loop", samples=16, chunk=8),
}
REFERENCE = "train_mse"
"""The case that the other training steps are held against."""
OVERHEAD_OF = (REFERENCE, "train_sgd_jitter")
PEER_CASES = ("train_mse", "train_sgd_jitter", "pgd_step", "attack", "inference")
"""What is written in PyTorch as well."""
FRAMEWORKS = {"jax": "JAX", "torch": "PyTorch", "torch_compile": "torch.compile"}


class Work(NamedTuple):
    """One case, ready to be run.

    Attributes:
        run: does it once, and returns when it is done.
        parameters: number of learned parameters.
        compile_s: seconds of tracing and compiling, and of the first run where these are one; None
            where nothing is compiled.
        temp_bytes: memory that the compiled program takes beside its arguments and results; None
            where that is not known.
        program_bytes: the same with arguments and results.
        gflop: billions of floating-point operations, where the config does not tell.
    """

    run: Callable[[], Any]
    parameters: int
    compile_s: float | None = None
    temp_bytes: int | None = None
    program_bytes: int | None = None
    gflop: float | None = None
