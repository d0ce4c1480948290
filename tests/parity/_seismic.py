"""Seismic deconvolution: `sgdj_seis`, `sgdj_seis_352`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _runs import Problem, pack_signal, runs
from _weights import Arrays, parameters

from jitter_jax import networks, operators, unroll
from jitter_jax.data.measure import Measured, normalise


def _channels_last(x) -> jax.Array:
    return jnp.moveaxis(x, -3, -1)


SEISMIC = Problem(
    networks.SeismicCNN(),
    unroll.scalar.sigmoid(scale=0.1),
    unpack_signal=_channels_last,
    unpack_measurement=_channels_last,
    pack_measurement=pack_signal,
    start="measurement",
    sees_measurement=True,
    noise_step_size=jnp.exp,
)


def seismic(arrays: Arrays) -> Arrays:
    """Returns the outputs of a file of seismic reconstructions."""
    ricker_points, ricker_width = (int(v) for v in arrays["cfg/ricker"])
    wavelet = operators.ricker(ricker_points, ricker_width)
    if arrays["y"].dtype == np.float64:
        # The peer's matrix is float32 and its float64 replay casts it.
        wavelet = wavelet.astype(np.float64)
    operator = operators.convolution(wavelet)
    raw = arrays.get("X_raw", arrays["X"])
    of_raw, out = _outputs(parameters(arrays, "w/"), operator, arrays["X"], arrays["y"], raw)
    if "X_raw" in arrays:
        y_raw = np.asarray(of_raw) + arrays["cfg/noise_level"].item() * arrays["meas_z"]
        measured = normalised(operator, raw, y_raw)
        out |= {"y_raw": y_raw, "maxval": measured.scale}
        out |= {"y": measured.measurement, "X": measured.signal}
    return out | runs(SEISMIC, operator, arrays, start=arrays["y"], y=arrays["y"])


@jax.jit
def _outputs(params, operator, signal, y, raw) -> tuple[jax.Array, dict[str, jax.Array]]:
    x, measured = (_channels_last(a) for a in (signal, y))
    forward, adjoint = jax.vmap(operator.forward), jax.vmap(operator.adjoint)
    seen = jnp.concatenate([measured, x], -1)
    outputs = {
        "forward_X": forward(x),
        "adjoint_y": adjoint(measured),
        "gramian_X": adjoint(forward(x)),
        "R_of_y_X": jax.vmap(partial(SEISMIC.network.apply, params["network"]))(seen),
    }
    matrix = operators.convolution_matrix(operator.leaves, x.shape[1])
    return (
        pack_signal(forward(_channels_last(raw))),
        {"A": matrix} | {key: pack_signal(value) for key, value in outputs.items()},
    )


@jax.jit
def normalised(operator: operators.LinearOperator, signal, measurement) -> Measured:
    """Divides each signal of a batch and its measurement by the largest entry of the latter."""
    one = lambda x, y: normalise(operator, x, y, "measurement")
    return jax.vmap(one)(signal, measurement)
