"""Random keys by what they are for."""

import zlib

import jax


def domain_key(seed: int, domain: str) -> jax.Array:
    """Returns the root key of one use of a seed.

    Two uses that folded small numbers into the same root would share draws: step 3 and example 3.

    Args:
        seed: any integer that `jax.random.key` takes.
        domain: what the key is for, such as `"weights"`.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(domain.encode()))
