"""What is computed once, and read from memory by all that use it."""

from jax import Array, lax


def stored(x: Array, witness: Array) -> Array:
    """x, written to memory once: XLA's CPU backend computes a value anew for each of its uses where
    it joins it to them, and removes an optimization barrier before it does; it joins nothing
    through a conditional. The predicate, of the first number of `witness`, is false for every
    number (also NaN and infinity), which the compiler cannot know. Linear in x.
    """
    number = lax.stop_gradient(witness[(0,) * witness.ndim])
    return lax.cond(number * 0 == 1, lambda x: x * 2, lambda x: x, x)
