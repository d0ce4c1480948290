"""Strict JAX for all tests: eight fake devices, no implicit broadcasting, no key used twice."""

import importlib.metadata
import os
import tempfile

# Before the first import of JAX, which reads both. Tests that want an accelerator name it in
# JAX_PLATFORMS.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# All devices of a sum over devices wait for each other, each in a thread of XLA's pool, which has
# one a core unless it is told otherwise: with fewer threads than devices they wait for ever.
os.environ.setdefault("NPROC", "64")
# Tests compile more than they compute: the compiler's costly passes are left out. Its flags come
# and go with its version, and an unknown one would end the process.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = " ".join(
        [
            "--xla_backend_optimization_level=1",
            "--xla_llvm_disable_expensive_passes=true",
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
            # There is a worker a core in any case.
            "--xla_cpu_multi_thread_eigen=false",
            # Devices of a busy machine may come late to such a sum.
            "--xla_cpu_collective_call_terminate_timeout_seconds=300",
            os.environ.get("XLA_FLAGS", ""),
        ]
    )
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

# A program that another test, process or worker has compiled is read back.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="jitter_jax-tests-")  # kept until the tests end
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)
