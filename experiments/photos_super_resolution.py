"""A small sub-pixel network that enlarges photographs twice, trained on crops of twelve others.

    JAXCNN_SET5=… python launch.py train experiments/photos_super_resolution.py
    python launch.py predict RUN photo.png        # the photo, twice as large
    JAXCNN_SET5=… python launch.py evaluate RUN --split test

                                     bicubic    network                      gain
    60 crops of three photographs    32.68 dB   35.29 ± 0.04 dB (n = 3)      2.62 ± 0.04 dB; SSIM
    0.907, 0.9349 ± 0.0001 Set5's butterfly, whole          27.44 dB   32.195 ± 0.008 dB (n = 3)
    4.757 ± 0.008 dB

PSNR of the luma, without a frame of 2 pixels, means ± standard deviations over seeds 0 to 2, 1,200
steps. 29,220 parameters; the network is ESPCN with five narrow layers instead of three.
$JAXCNN_SET5: a folder with butterfly.png (dnn_superres of the Debian package opencv-doc); where it
is not set, there is no test split. The butterfly is never trained on; the settings were chosen on
these same pictures. 46 s a seed on one core of an Intel Xeon (AVX-512, family 6 model 167),
2026-11-22.
"""

from functools import partial

import optax
from flax import linen as nn

from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.made.photo_crops import PhotoCrops
from jaxcnn.models.super_resolution import ESPCN, LumaResidual
from jaxcnn.tasks.super_resolution import SuperResolution

experiment = Experiment(
    model=LumaResidual(
        ESPCN(scale=2, windows=(3, 3, 3, 3, 3), widths=(32, 32, 32, 32), activation=nn.relu)
    ),
    task=SuperResolution(scale=2, epsilon=0.02),
    data=PhotoCrops(scale=2, reductions=(1.0, 0.7, 0.5), test=("$JAXCNN_SET5/butterfly.png",)),
    optimizer=partial(optax.adam, learning_rate=2e-3),
    schedule=partial(schedules.cosine, warmup=0.02),
    batch_size=32,
    eval_batch_size=20,
    steps=1200,
    eval_every=10,
)
