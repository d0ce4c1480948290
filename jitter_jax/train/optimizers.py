"""Optimizers and learning rates by name, for configs."""

from typing import Any

import jax
import optax

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear", "exponential")


def make_optimizer(
    name: str = "adam",
    *,
    learning_rate: float,
    schedule: str = "constant",
    num_steps: int | None = None,
    warmup_steps: int = 0,
    hold_steps: int = 0,
    final_scale: float = 0.0,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.0,
) -> optax.GradientTransformation:
    """Makes an Optax optimizer: clipping, then the named rule with its schedule.

    Args:
        name: 'adam', 'adamw' or 'sgd'.
        learning_rate: The peak learning rate, positive.
        schedule: 'constant', 'cosine', 'linear' or 'exponential'; see `make_schedule`.
        num_steps: Length of the whole run in steps; every schedule but 'constant' needs it.
        warmup_steps: Steps over which the rate rises linearly from zero.
        hold_steps: Steps at the peak before it decays.
        final_scale: Rate at `num_steps`, as a fraction of the peak, in [0, 1].
        clip_norm: Gradients with a larger global l2 norm are scaled down to it; None or 0 never
            clips.
        weight_decay: Decoupled in 'adamw'; added to the gradient (l2 penalty) in 'sgd'. Leaves
            under the name `batch_stats` do not decay.
        b1: Decay of the first moment, in [0, 1); 'adam' and 'adamw' only.
        b2: Decay of the second moment, in [0, 1); 'adam' and 'adamw' only.
        eps: Added to the root of the second moment; 'adam' and 'adamw' only.
        momentum: In [0, 1); 'sgd' only.

    Returns:
        The transformation, to be passed to `init_state` and `make_step`.

    Raises:
        ValueError: If a name is unknown, a number out of range, or an option does not belong to
            the optimizer.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer {name!r} is not known; choose from {', '.join(OPTIMIZERS)}")
    if clip_norm is not None and not clip_norm >= 0:
        raise ValueError(f"clip_norm must be positive, or 0 or None for none, got {clip_norm}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    for option, value in (("b1", b1), ("b2", b2), ("momentum", momentum)):
        if not 0 <= value < 1:
            raise ValueError(f"{option} must be in [0, 1), got {value}")
    if name == "adam" and weight_decay:
        raise ValueError("weight_decay with 'adam' is ambiguous; use 'adamw' (decoupled)")
    if name != "sgd" and momentum:
        raise ValueError(f"momentum belongs to 'sgd'; for {name!r} set b1")
    rate = make_schedule(
        learning_rate,
        schedule=schedule,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        hold_steps=hold_steps,
        final_scale=final_scale,
    )
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "adam":
        parts.append(optax.adam(rate, b1=b1, b2=b2, eps=eps))
    elif name == "adamw":
        parts.append(
            optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=_decays)
        )
    else:
        if weight_decay:
            parts.append(optax.add_decayed_weights(weight_decay, _decays))
        parts.append(optax.sgd(rate, momentum=momentum or None))
    return optax.chain(*parts)


def _decays(params: Any) -> Any:
    """Says of each leaf whether it decays: stored statistics of a batch norm are no weights."""

    def decays(path: tuple[Any, ...], leaf: Any) -> bool:
        del leaf
        return not any(getattr(part, "key", None) == "batch_stats" for part in path)

    return jax.tree_util.tree_map_with_path(decays, params)


def make_schedule(
    learning_rate: float,
    *,
    schedule: str = "constant",
    num_steps: int | None = None,
    warmup_steps: int = 0,
    hold_steps: int = 0,
    final_scale: float = 0.0,
) -> optax.Schedule:
    """Makes a learning rate that warms up, holds its peak, then decays.

    Args:
        learning_rate: The peak, positive.
        schedule: Shape of the decay: 'cosine', 'linear', 'exponential' (the same factor every
            step), or 'constant' for none.
        num_steps: The step at which the decay ends; not needed by 'constant'.
        warmup_steps: Steps over which the rate rises linearly from zero, at least 0.
        hold_steps: Steps at the peak before the decay starts, at least 0.
        final_scale: Rate at the end as a fraction of the peak, in [0, 1]; 'exponential' needs it
            positive, 'constant' ignores it.

    Returns:
        A function from the step number (the first is 0) to the learning rate.

    Raises:
        ValueError: If the name is unknown or a number out of range.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule {schedule!r} is not known; choose from {', '.join(SCHEDULES)}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}")
    for option, value in (("warmup_steps", warmup_steps), ("hold_steps", hold_steps)):
        if value < 0:
            raise ValueError(f"{option} must not be negative, got {value}")
    if not 0 <= final_scale <= 1:
        raise ValueError(f"final_scale must be in [0, 1], got {final_scale}")
    if schedule == "exponential" and final_scale == 0:
        raise ValueError("schedule 'exponential' needs a positive final_scale, got 0")
    phases = [(warmup_steps, optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1)))]
    phases.append((hold_steps, optax.constant_schedule(learning_rate)))
    phases = [(steps, phase) for steps, phase in phases if steps]
    start = warmup_steps + hold_steps
    if schedule == "constant":
        last = optax.constant_schedule(learning_rate)
    elif num_steps is None or num_steps <= start:
        raise ValueError(
            f"schedule {schedule!r} needs num_steps above warmup_steps + hold_steps = {start}, "
            f"got {num_steps}"
        )
    elif schedule == "cosine":
        last = optax.cosine_decay_schedule(learning_rate, num_steps - start, alpha=final_scale)
    else:
        end = learning_rate * final_scale
        if schedule == "linear":
            last = optax.linear_schedule(learning_rate, end, num_steps - start)
        else:
            last = optax.exponential_decay(
                learning_rate, num_steps - start, final_scale, end_value=end
            )
    boundaries = [warmup_steps, start] if len(phases) == 2 else [start] * len(phases)
    return optax.join_schedules([*(phase for _, phase in phases), last], boundaries)
