"""Training: the step, the loop, checkpoints and the record of a run."""

from jitter_jax.train._meter import NonFiniteError as NonFiniteError
from jitter_jax.train.checkpoint import CheckpointError as CheckpointError
from jitter_jax.train.checkpoint import Checkpoints as Checkpoints
from jitter_jax.train.checkpoint import has_checkpoint as has_checkpoint
from jitter_jax.train.checkpoint import restore_params as restore_params
from jitter_jax.train.loop import Batches as Batches
from jitter_jax.train.loop import check_loop_options as check_loop_options
from jitter_jax.train.loop import fit as fit
from jitter_jax.train.metrics_log import METRICS_FILE as METRICS_FILE
from jitter_jax.train.metrics_log import TIMING_FIELDS as TIMING_FIELDS
from jitter_jax.train.metrics_log import read_metrics as read_metrics
from jitter_jax.train.optimizers import make_optimizer as make_optimizer
from jitter_jax.train.optimizers import make_schedule as make_schedule
from jitter_jax.train.report import curves_figure as curves_figure
from jitter_jax.train.run_config import ConfigError as ConfigError
from jitter_jax.train.run_config import check_config as check_config
from jitter_jax.train.run_config import load_config as load_config
from jitter_jax.train.run_config import save_config as save_config
from jitter_jax.train.signals import StopRequest as StopRequest
from jitter_jax.train.signals import stop_on_signals as stop_on_signals
from jitter_jax.train.step import TrainState as TrainState
from jitter_jax.train.step import eval_params as eval_params
from jitter_jax.train.step import init_state as init_state
from jitter_jax.train.step import make_step as make_step
