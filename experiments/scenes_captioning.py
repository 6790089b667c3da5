"""A small CNN with an attention LSTM says what lies where: two or three real Fashion-MNIST items on photographs.

    python launch.py train experiments/scenes_captioning.py
    python launch.py train experiments/scenes_captioning.py data.shuffled=True

Not measured yet ±.
"""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.captions import CaptionScenes, draw_caption
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.captioning import AttentionLSTM, CaptionNet, GridEncoder
from jaxcnn.tasks.captioning import Captioning

NUM_WORDS = 25  # of CaptionScenes' vocabulary

experiment = Experiment(
    model=CaptionNet(GridEncoder(widths=(16, 32, 64, 64)), AttentionLSTM(NUM_WORDS, width=96, attention_width=64), max_words=14),
    task=Captioning(vocabulary_size=NUM_WORDS, label_smoothing=0.1, metric="exact"),
    data=CaptionScenes(items=Tfds("fashion_mnist", train="train", eval="test")),
    augment=(draw_caption,),
    optimizer=partial(optax.adamw, learning_rate=3e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    clip_norm=1.0,
    batch_size=32,
    steps=1500,
)
