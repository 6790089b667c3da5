"""ResNet-50 with an attention LSTM describes the photographs of COCO 2017 in sentences (after Xu et
al., "Show, Attend and Tell", 2015).

    python launch.py train experiments/coco_captioning.py
    python launch.py predict RUN photo.jpg

For an accelerator; not measured (not even n = 1 run was possible here). Published: BLEU-4 24.3
(table 1, soft attention, COCO 2014, VGG features trained on ImageNet); here ResNet and LSTM are
trained together, from scratch. No mirror images: captions say left and right. Expects COCO's own
folders train2017, val2017 and annotations in ~/data/coco. A vocabulary of all words that occur at
least 5 times in the training captions fits into VOCABULARY_SIZE; output words beyond it are never a
target.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.coco import Coco
from jaxcnn.models.captioning import AttentionLSTM, CaptionNet
from jaxcnn.models.resnet import resnet50
from jaxcnn.tasks.captioning import Captioning

VOCABULARY_SIZE = 12_000
COCO = "~/data/coco"

experiment = Experiment(
    model=CaptionNet(
        resnet50(num_classes=0, pyramid=True),
        AttentionLSTM(VOCABULARY_SIZE, dropout_rate=0.5),
        max_words=21,
        beam_size=3,
        length_penalty=0.7,
    ),
    task=Captioning(VOCABULARY_SIZE, label_smoothing=0.1, metric="cider"),
    data=Coco(
        f"{COCO}/annotations/captions_train2017.json",
        images=f"{COCO}/train2017",
        entries=("captions",),
        eval_path=f"{COCO}/annotations/captions_val2017.json",
        eval_images=f"{COCO}/val2017",
        image_size=(256, 256),
    ),
    augment=(augment.draw_caption, augment.jitter_color),
    transform=(
        partial(augment.standardize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    clip_norm=1.0,
    batch_size=256,
    epochs=60,
    eval_every=5,
    ema=0.999,
    compute_dtype="bfloat16",
)
