"""Unrolled reconstructions: `K` iterations, each a data step and a learned step."""

from jitter_jax.unroll import jitter as jitter
from jitter_jax.unroll import step_size as step_size
from jitter_jax.unroll.gradient import gradient_descent as gradient_descent
from jitter_jax.unroll.iterate import Jitter as Jitter
from jitter_jax.unroll.iterate import Remat as Remat
from jitter_jax.unroll.iterate import unroll as unroll
from jitter_jax.unroll.proximal import proximal_gradient as proximal_gradient
from jitter_jax.unroll.reconstructor import Network as Network
from jitter_jax.unroll.reconstructor import Reconstructor as Reconstructor
from jitter_jax.unroll.reconstructor import from_channels as from_channels
from jitter_jax.unroll.reconstructor import to_channels as to_channels
from jitter_jax.unroll.reconstructor import unrolled as unrolled
