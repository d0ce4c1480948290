"""Forward operators `A`: pure (forward, adjoint) pairs over array leaves."""

from jitter_jax.operators.blocks import block_sampling as block_sampling
from jitter_jax.operators.blocks import sampled_ratio as sampled_ratio
from jitter_jax.operators.blocks import whole_blocks as whole_blocks
from jitter_jax.operators.blur import Boundary as Boundary
from jitter_jax.operators.blur import blur as blur
from jitter_jax.operators.blur import gaussian_kernel as gaussian_kernel
from jitter_jax.operators.cartesian_mri import cartesian_mri as cartesian_mri
from jitter_jax.operators.cartesian_mri import cartesian_mri_repo as cartesian_mri_repo
from jitter_jax.operators.convolution import convolution as convolution
from jitter_jax.operators.convolution import convolution_matrix as convolution_matrix
from jitter_jax.operators.convolution import ricker as ricker
from jitter_jax.operators.dense import dense as dense
from jitter_jax.operators.dense import identity as identity
from jitter_jax.operators.fourier import centred_fft2 as centred_fft2
from jitter_jax.operators.fourier import centred_ifft2 as centred_ifft2
from jitter_jax.operators.inpainting import inpainting as inpainting
from jitter_jax.operators.linear_operator import LinearOperator as LinearOperator
from jitter_jax.operators.linear_operator import compose as compose
from jitter_jax.operators.linear_operator import dot_test as dot_test
from jitter_jax.operators.linear_operator import normal as normal
from jitter_jax.operators.linear_operator import operator_norm as operator_norm
from jitter_jax.operators.matrices import gaussian_matrix as gaussian_matrix
from jitter_jax.operators.matrices import orthonormal_rows as orthonormal_rows
from jitter_jax.operators.sense import normalise_maps as normalise_maps
from jitter_jax.operators.sense import sense as sense
from jitter_jax.operators.super_resolution import super_resolution as super_resolution
