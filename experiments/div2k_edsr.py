"""EDSR-baseline that enlarges photographs twice, trained on DIV2K as published (Lim et al., 2017,
section 4).

    DIV2K=/data/div2k JAXCNN_SET5=/data/set5 python launch.py train experiments/div2k_edsr.py
    python launch.py predict RUN photo.png

For an accelerator; not measured (not even n = 1 run was possible here). Published: 37.99 dB on Set5
(table 3, EDSR-baseline). $DIV2K holds the published folders DIV2K_train_HR and DIV2K_valid_HR,
$JAXCNN_SET5 butterfly.png (left out where absent). The small pictures are made on the fly and not
rounded to bytes. All 800 photographs stay decoded in memory: 6.6 GB.
"""

from functools import partial

import optax

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.photo_crops import PhotoCrops
from jaxcnn.models.super_resolution import edsr_baseline
from jaxcnn.tasks.super_resolution import SuperResolution

SCALE = 2

experiment = Experiment(
    model=edsr_baseline(scale=SCALE),
    task=SuperResolution(scale=SCALE, colour=True),
    data=PhotoCrops(
        train=("$DIV2K/DIV2K_train_HR",),
        eval=("$DIV2K/DIV2K_valid_HR",),
        test=("$JAXCNN_SET5/butterfly.png",),
        scale=SCALE,
        image_size=(96, 96),
        eval_size=(512, 512),
        num_train=16_000,
        num_eval=200,
    ),
    optimizer=partial(optax.adam, learning_rate=1e-4),
    schedule=partial(schedules.step, boundaries=(2 / 3,), factor=0.5),
    batch_size=16,
    eval_batch_size=4,
    steps=300_000,
    eval_every=10,
)
