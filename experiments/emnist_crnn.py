"""The published CRNN reads lines of 3 to 10 handwritten letters and digits of EMNIST on
photographs, 32x192 pixels: accelerator scale.

    python launch.py prepare emnist/balanced
    python launch.py train experiments/emnist_crnn.py compute_dtype=bfloat16

Not measured (not even an n = 1 run was possible where this was written). 8.3 million parameters, 47
characters (EMNIST merges those lower case letters that look like their capitals), the balanced
set's 112,800 training characters; lines are composed on the device, so that no two of the 960,000
are the same.
Architecture: Shi, Bai, Yao, "An End-to-End Trainable Neural Network for Image-based Sequence
Recognition" (2015), which trained with ADADELTA on 8 million lines of rendered text.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.text_scenes import TextLines
from jaxcnn.models.crnn import CRNN
from jaxcnn.tasks.recognition import TextRecognition

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"

experiment = Experiment(
    model=CRNN(num_characters=len(ALPHABET), dropout=0.1),
    task=TextRecognition(alphabet=ALPHABET),
    data=TextLines(
        items=Tfds("emnist/balanced", train="train", eval="test"),
        image_size=(32, 192),
        min_length=3,
        max_length=10,
        num_train=960_000,
        num_eval=10_000,
        transposed=True,
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=256,
    epochs=10.0,
    clip_norm=5.0,
    ema=0.999,
)
