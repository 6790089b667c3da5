"""Average pooling to a given output size, whatever the input size."""

import jax.numpy as jnp
import numpy as np


def adaptive_avg_pool(x, size: tuple[int, ...]):
    """Mean over windows that split each spatial axis into `size` parts: [B, *spatial, C] -> [B,
    *size, C].

    Part i of m of an axis of length n spans floor(i n / m) to ceil((i + 1) n / m), the rule of
    torch.nn.AdaptiveAvgPool2d: neighbours may overlap by one, and an axis shorter than m repeats
    its elements.
    """
    for axis, (n, m) in enumerate(zip(x.shape[1:-1], size, strict=True), 1):
        if n != m:
            windows = np.zeros((m, n))
            for i in range(m):
                start, end = i * n // m, -(-(i + 1) * n // m)
                windows[i, start:end] = 1 / (end - start)
            x = jnp.moveaxis(
                jnp.tensordot(x, jnp.asarray(windows, x.dtype), axes=(axis, 1)), -1, axis
            )
    return x
