"""The convolutional network for Fashion-MNIST of a well-known textbook. Images [B, H, W, C] in [0,
1], output [B, K] logits.

Source: Géron, "Hands-On Machine Learning with Scikit-Learn, Keras, and TensorFlow", chapter 14,
"CNN Architectures".
"""

import jax
from flax import linen as nn

from jaxcnn.layers import Conv, max_pool, require_image


class FashionCNN(nn.Module):
    """64@7x7, pool, 2 x 128@3x3, pool, 2 x 256@3x3, pool, 128, 64, `num_classes`; 1,413,834
    parameters at 28x28x1 and ten classes.

    ReLU, "SAME" padding, He-normal weights; dropout before the last two dense layers when `train`
    (needs the key "dropout").
    """

    num_classes: int = 10
    dropout_rate: float = 0.5

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        require_image("FashionCNN", image, at_least=8)
        he = nn.initializers.he_normal()
        x = image
        for stage, (features, window, repeats) in enumerate(((64, 7, 1), (128, 3, 2), (256, 3, 2))):
            for i in range(repeats):
                x = nn.relu(
                    Conv(
                        features,
                        (window, window),
                        padding="SAME",
                        kernel_init=he,
                        name=f"conv{stage + 1}_{i + 1}",
                    )(x)
                )
            x = max_pool(x, (2, 2))  # 28 -> 14 -> 7 -> 3
        x = x.reshape(x.shape[0], -1)
        for i, features in enumerate((128, 64)):
            x = nn.relu(nn.Dense(features, kernel_init=he, name=f"fc{i + 1}")(x))
            x = nn.Dropout(self.dropout_rate, deterministic=not train, name=f"dropout{i + 1}")(x)
        return nn.Dense(
            self.num_classes, kernel_init=nn.initializers.glorot_uniform(), name="output"
        )(x)
