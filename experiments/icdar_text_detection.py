r"""Incidental scene text of ICDAR 2015 as rectangles at any angle, 640x640 pixels, RGB: accelerator
scale.

    python launch.py train experiments/icdar_text_detection.py data.path=TRAIN_IMAGES
        data.labels=TRAIN_LABELS \ data.eval_path=TEST_IMAGES data.eval_labels=TEST_LABELS
        compute_dtype=bfloat16

Not measured (not even an n = 1 run was possible where this was written): the images (1,000 for
training, 500 for testing) come from the contest's site, after registration.
`experiments/scenes_text_detection.py` is the same task on 96x96 scenes, measured. Kernels, their
loss and the way back to outlines as in Liao, Wan, Yao, Chen, Bai, "Real-time Scene Text Detection
with Differentiable Binarization" (2020), which trained with random rotation and cropping, and on
synthetic text first; here images keep their place.
Unreadable text (###) is ignored in training and evaluation.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.icdar import Icdar
from jaxcnn.models.text_detection import TextKernelNet
from jaxcnn.tasks.text_detection import TextDetection

experiment = Experiment(
    model=TextKernelNet(widths=(64, 128, 256, 512), blocks=2, pyramid=256, stem=64, stride=4),
    task=TextDetection(shrink_ratio=0.4),
    data=Icdar(
        path="data/icdar2015/ch4_training_images",
        labels="data/icdar2015/ch4_training_localization_transcription_gt",
        eval_path="data/icdar2015/ch4_test_images",
        eval_labels="data/icdar2015/Challenge4_Test_Task1_GT",
        image_size=(640, 640),
        channels=3,
        max_items=64,
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=16,
    epochs=1200.0,
    eval_every=100.0,
    clip_norm=5.0,
    ema=0.999,
)
