"""Learned steps `f`, as Linen modules of one signal."""

from jitter_jax.networks.dncnn import DnCNN as DnCNN
from jitter_jax.networks.mlp import MLP as MLP
from jitter_jax.networks.seismic_cnn import SeismicCNN as SeismicCNN
from jitter_jax.networks.unet import UNet as UNet
