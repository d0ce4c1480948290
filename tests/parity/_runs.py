"""What the golden files call a run: an unrolled reconstruction, its loss and its derivatives.

What runs under `jit` are module-level functions, so that files and tests share what is compiled.
They take and give arrays, derivatives included, in the layout of the golden files.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _weights import Arrays, layers, parameters, state_dict

from jitter_jax import metrics, unroll
from jitter_jax.operators import LinearOperator
from jitter_jax.unroll.iterate import data_gradient

Array = jax.Array
METHODS: dict[str, Callable[..., Array]] = {
    "gd": unroll.gradient_descent,
    "prox": unroll.proximal_gradient,
}


class Problem(NamedTuple):
    """A published reconstruction, and how the golden files lay out its arrays.

    Attributes:
        network: the learned step.
        step_size: how the learned number becomes the step size.
        unpack_signal: golden `(..., channels, height, width)` to the library's signals.
        unpack_measurement: golden measurements to the library's.
        pack_measurement: inverts `unpack_measurement`.
        start: see `unroll.unrolled`.
        sees_measurement: see `unroll.unrolled`.
        noise_step_size: the learned number to the factor of the proximal method's jitter; None
            where that is the step size.
    """

    network: unroll.Network
    step_size: unroll.scalar.Scalar
    unpack_signal: Callable[[Any], Array]
    unpack_measurement: Callable[[Any], Array]
    pack_measurement: Callable[[Array], Array]
    start: Literal["adjoint", "measurement"] = "adjoint"
    sees_measurement: bool = False
    noise_step_size: Callable[[Array], Array] | None = None

    def reconstructor(self, method: Callable[..., Array], num_iterations: int):
        """Returns the published reconstruction."""
        return unroll.unrolled(
            method,
            self.network,
            {"step_size": self.step_size},
            num_iterations=num_iterations,
            start=self.start,
            sees_measurement=self.sees_measurement,
        )


def pack_signal(x: Array) -> Array:
    """Turns signals `(..., height, width, channels)` into the golden layout, channels first."""
    return jnp.moveaxis(unroll.to_channels(x), -1, -3)


def runs(problem: Problem, operator: LinearOperator, arrays: Arrays, *, start, y) -> Arrays:
    """Returns what every run of a file gives, under its golden keys.

    Args:
        problem: what is reconstructed, and how.
        operator: the operator `A`.
        arrays: the file, with truths `X`, weights, settings and the normals of the jitter, which
            may be absent.
        start: first iterates, laid out as signals.
        y: measurements.
    """
    params, names = parameters(arrays, "w/"), layers(arrays, "w/")
    signal, sigma = arrays["X"], arrays["cfg/sigma_wk"].item()
    out: Arrays = {}
    for method, num_iterations in product(METHODS, np.atleast_1d(arrays["cfg/K"]).tolist()):
        differentiate = partial(
            _run,
            params,
            start,
            y,
            operator=operator,
            signal=signal,
            problem=problem,
            method=method,
            num_iterations=num_iterations,
            sigma=sigma,
        )
        # No noise is the recorded noise 0: one function to compile for both runs.
        noise = np.zeros((num_iterations, *signal.shape), signal.dtype)
        values, (grad, grad_start, grad_y) = differentiate(noise)
        run: Arrays = {"out": values["out"], "loss": values["loss"]}
        run |= {"grad_x0": grad_start, "grad_y": grad_y}
        run |= {f"grad/{key}": value for key, value in state_dict(grad, names).items()}
        if "jitter_z" in arrays:
            values, (grad, *_) = differentiate(arrays["jitter_z"][:num_iterations])
            run |= {f"jitter_{key}": value for key, value in values.items()}
            run |= {f"jitter_grad/{key}": value for key, value in state_dict(grad, names).items()}
            run["jitter_scaled_first"] = run["jitter_scaled"][0]
        out |= {f"{method}{num_iterations}/{key}": value for key, value in run.items()}
    return out


@partial(jax.jit, static_argnames=("problem", "method", "num_iterations", "sigma"))
def _run(
    params, start, y, noise, *, operator, signal, problem, method, num_iterations, sigma
) -> tuple[dict[str, Array], tuple[Any, Array, Array]]:
    """One run with the normals `noise`, `(K, batch, ...)`, and the derivatives of its loss.

    The start and the measurement are one array to the published networks, but separate arguments
    of their derivative.
    """

    def loss(params, start, y):
        def one(x_0, y, noise):
            def from_start(*args, start, **options):
                del start
                if method == "prox" and problem.noise_step_size is not None:
                    options["noise_step_size"] = problem.noise_step_size(params["step_size"])
                return METHODS[method](*args, start=x_0, **options)

            draw = unroll.jitter.repo(sigma, recorded=noise)
            # The draws are recorded; the key only says that there is jitter.
            key = jax.random.key(0)
            trajectory = problem.reconstructor(from_start, num_iterations).apply(
                params, operator, y, key=key, jitter=draw, return_trajectory=True
            )
            gradients = jax.vmap(lambda x: data_gradient(operator, x, y))(trajectory[:-1])
            stepped = trajectory[:-1] - problem.step_size.value(params["step_size"]) * gradients
            added = jax.vmap(lambda x, k: draw(key, x, k, num_iterations))(
                stepped, jnp.arange(num_iterations)
            )
            return trajectory[-1], stepped, added

        estimate, stepped, added = jax.vmap(one, in_axes=(0, 0, 1), axis_name="batch")(
            problem.unpack_signal(start),
            problem.unpack_measurement(y),
            problem.unpack_signal(noise),
        )
        estimate = pack_signal(estimate)
        error = metrics.mse(estimate, signal)
        return error, {
            "out": estimate,
            "loss": error,
            "max": jnp.max(unroll.to_channels(stepped), axis=(0, 2, 3, 4)),
            "scaled": jnp.swapaxes(pack_signal(added), 0, 1),
        }

    (_, values), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(
        params, start, y
    )
    return values, gradients
