"""Train, attack and certify unrolled networks for inverse problems in JAX."""
