"""What the times were measured on."""

import importlib.metadata
import os
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any


def describe_machine(frameworks: Collection[str]) -> dict[str, Any]:
    """Return processor, system and versions.

    Args:
        frameworks: those that were timed.
    """
    versions = {"python": platform.python_version()}
    packages = ["jitter_jax", "jax", "jaxlib", "flax", "optax", "numpy"]
    for package in packages + ["torch"] * any("torch" in name for name in frameworks):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }
