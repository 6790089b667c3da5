"""ESPCN that enlarges photographs twice, trained on crops of twelve others.

python launch.py train experiments/photos_super_resolution.py
"""

from functools import partial

import optax
from flax import linen as nn

from jaxcnn import schedules
from jaxcnn.data.crops import PhotoCrops
from jaxcnn.experiment import Experiment
from jaxcnn.models.super_resolution import ESPCN, LumaResidual
from jaxcnn.tasks.super_resolution import SuperResolution

experiment = Experiment(
    model=LumaResidual(ESPCN(scale=2, activation=nn.relu)),
    task=SuperResolution(scale=2),
    data=PhotoCrops(scale=2, test=("$JAXCNN_SET5/butterfly.png",)),
    optimizer=partial(optax.adam, learning_rate=3e-3),
    schedule=partial(schedules.cosine, warmup=0.02),
    batch_size=32,
    eval_batch_size=20,
    steps=1500,
    eval_every=10,
)
