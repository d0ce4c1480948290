"""Strict JAX for all tests: eight fake devices, no implicit broadcasting, no key used twice."""

import os

# Before the first import of JAX, which reads both. Tests that want an accelerator name it in
# JAX_PLATFORMS.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
