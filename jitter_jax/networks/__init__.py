"""Learned steps `f`, as Linen modules of one signal."""

from jitter_jax.networks.didn import DIDN as DIDN
from jitter_jax.networks.dncnn import DnCNN as DnCNN
from jitter_jax.networks.dpdnn import DPDNNUNet as DPDNNUNet
from jitter_jax.networks.ista_net import ConditionNetwork as ConditionNetwork
from jitter_jax.networks.ista_net import ISTANetPlusPhase as ISTANetPlusPhase
from jitter_jax.networks.ista_net import ISTANetPPPhase as ISTANetPPPhase
from jitter_jax.networks.mlp import MLP as MLP
from jitter_jax.networks.modl_cnn import MoDLCNN as MoDLCNN
from jitter_jax.networks.precision import Precision as Precision
from jitter_jax.networks.precision import in_precision as in_precision
from jitter_jax.networks.seismic_cnn import SeismicCNN as SeismicCNN
from jitter_jax.networks.unet import UNet as UNet
from jitter_jax.networks.weight_encoder import WeightEncoder as WeightEncoder
