"""Training schemes: each a factory of `loss(params, batch, key) -> (loss, aux)`."""

from jitter_jax.schemes.adversarial import adversarial as adversarial
from jitter_jax.schemes.denoising import denoising as denoising
from jitter_jax.schemes.input_jitter import input_jitter as input_jitter
from jitter_jax.schemes.input_jitter import krainovic_level as krainovic_level
from jitter_jax.schemes.jacobian import jacobian as jacobian
from jitter_jax.schemes.lift import LevelLoss as LevelLoss
from jitter_jax.schemes.lift import Loss as Loss
from jitter_jax.schemes.lift import batched as batched
from jitter_jax.schemes.mse import mse as mse
from jitter_jax.schemes.sgd_jitter import sgd_jitter as sgd_jitter
from jitter_jax.schemes.smt_adv import smt_adv as smt_adv
from jitter_jax.schemes.smt_adv import smt_adv_fresh as smt_adv_fresh
from jitter_jax.schemes.smt_grad import smt_grad as smt_grad
from jitter_jax.schemes.smt_grad import smt_grad_levels as smt_grad_levels
from jitter_jax.schemes.unrolled_stability import unrolled_stability as unrolled_stability
