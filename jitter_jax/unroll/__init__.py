"""Unrolled reconstructions: `K` iterations, each a data step and a learned step."""

from jitter_jax.unroll import jitter as jitter
from jitter_jax.unroll import scalar as scalar
from jitter_jax.unroll.dpdnn import dpdnn as dpdnn
from jitter_jax.unroll.end_to_end import end_to_end as end_to_end
from jitter_jax.unroll.gradient import gradient_descent as gradient_descent
from jitter_jax.unroll.half_quadratic import Solve as Solve
from jitter_jax.unroll.half_quadratic import by_conjugate_gradients as by_conjugate_gradients
from jitter_jax.unroll.half_quadratic import (
    by_conjugate_gradients_to_tolerance as by_conjugate_gradients_to_tolerance,
)
from jitter_jax.unroll.half_quadratic import half_quadratic as half_quadratic
from jitter_jax.unroll.half_quadratic import in_closed_form as in_closed_form
from jitter_jax.unroll.half_quadratic_gradient import (
    half_quadratic_gradient as half_quadratic_gradient,
)
from jitter_jax.unroll.ista_net import ista_net_plus as ista_net_plus
from jitter_jax.unroll.ista_net import ista_net_pp as ista_net_pp
from jitter_jax.unroll.ista_net import real_signals as real_signals
from jitter_jax.unroll.iterate import Jitter as Jitter
from jitter_jax.unroll.iterate import Remat as Remat
from jitter_jax.unroll.iterate import unroll as unroll
from jitter_jax.unroll.proximal import proximal_gradient as proximal_gradient
from jitter_jax.unroll.published import load_published as load_published
from jitter_jax.unroll.reconstructor import Network as Network
from jitter_jax.unroll.reconstructor import Reconstructor as Reconstructor
from jitter_jax.unroll.reconstructor import from_channels as from_channels
from jitter_jax.unroll.reconstructor import to_channels as to_channels
from jitter_jax.unroll.reconstructor import unrolled as unrolled
