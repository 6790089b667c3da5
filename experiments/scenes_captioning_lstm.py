"""A small CNN with an attention LSTM (Xu et al., "Show, Attend and Tell", 2015) says what lies
where, as in scenes_captioning.py.

    python launch.py train experiments/scenes_captioning_lstm.py

Exact match 0.799 ± 0.046 (n = 3 seeds: 0.806, 0.750, 0.842), BLEU-4 0.953 ± 0.009, CIDEr-D 5.481 ±
0.119, greedy decoding, after 1,400 steps; always "a coat above a coat" has 0.004 exact. It learns
more slowly than the transformer of scenes_captioning.py, and its results spread more from seed to
seed. 207 s a seed on one core of an Intel Xeon (AVX-512, family 6 model 167), shared with others,
2026-11-22.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.caption_scenes import CaptionScenes
from jaxcnn.models.captioning import AttentionLSTM, CaptionNet, GridEncoder
from jaxcnn.tasks.captioning import Captioning

VOCABULARY_SIZE = 25  # of CaptionScenes with eight kinds of items

experiment = Experiment(
    model=CaptionNet(
        encoder=GridEncoder(widths=(16, 32, 64, 64, 96)),
        decoder=AttentionLSTM(VOCABULARY_SIZE, width=96, attention_width=64),
        max_words=14,
    ),
    task=Captioning(VOCABULARY_SIZE, label_smoothing=0.1, metric="exact"),
    data=CaptionScenes(items=Tfds("fashion_mnist", train="train", eval="test")),
    optimizer=partial(optax.adamw, learning_rate=3e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    clip_norm=1.0,
    batch_size=32,
    steps=1_400,
)
