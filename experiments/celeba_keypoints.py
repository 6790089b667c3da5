"""SimpleBaseline on ResNet-18 finds the eyes, the nose and the corners of the mouth in the faces of
CelebA.

    python launch.py prepare celeb_a
    python launch.py train experiments/celeba_keypoints.py

For an accelerator; not measured (not even n = 1 run was possible here). PCK and NME are in
distances between the eyes. A mirrored face
changes left and right: its points change places too.
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data import augment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.skeletons import FACE_5
from jaxcnn.models.keypoints import simple_baseline_resnet18
from jaxcnn.tasks.keypoints import Keypoints

NAMES = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")

experiment = Experiment(
    model=simple_baseline_resnet18(num_points=5),
    task=Keypoints(num_points=5, sigma=2.0, reference=(0, 1), edges=FACE_5.edges),
    data=Tfds(
        "celeb_a",
        eval="validation",
        test="test",
        label="",
        image_size=(224, 192),
        points=tuple(f"landmarks.{name}_{axis}" for name in NAMES for axis in "xy"),
    ),
    augment=(
        partial(augment.flip_left_right, swap=FACE_5.swap),
        partial(augment.affine, degrees=30.0, factor=(0.75, 1.25), translation=0.05),
        augment.jitter_color,
    ),
    transform=(
        partial(augment.standardize, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-3, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.step, boundaries=(0.64, 0.86), warmup=0.02),
    batch_size=128,
    epochs=10,
    compute_dtype="bfloat16",
)
