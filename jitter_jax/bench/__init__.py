"""The benchmark beside PyTorch: processes that take turns, and a report of their times."""

from jitter_jax.bench.parent import bench as bench
