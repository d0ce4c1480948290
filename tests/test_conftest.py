import jax
import jax.numpy as jnp
import pytest
from jax.errors import KeyReuseError


def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_implicit_broadcasting_is_refused():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_a_key_cannot_be_used_twice():
    key = jax.random.key(0)
    jax.random.normal(key)
    with pytest.raises(KeyReuseError):
        jax.random.normal(key)
