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
    return subkey(jax.random.key(seed), domain)


def subkey(key: jax.Array, domain: str) -> jax.Array:
    """Returns the key of one use of a key that has others.

    It is none of the keys that `jax.random.split` makes of few.

    Args:
        key: PRNG key.
        domain: what the key is for, such as `"smoothing"`.
    """
    return jax.random.fold_in(key, zlib.crc32(domain.encode()))
