"""Kim's text CNN (widths 3, 4, 5, maximum over time), on the SpamAssassin mails: spam or not, from the body alone."""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.mails import SpamAssassin
from jaxcnn.experiment import Experiment
from jaxcnn.models.text import TextCNN
from jaxcnn.tasks.classification import Classification

VOCABULARY_SIZE = 10_000

experiment = Experiment(
    model=TextCNN(vocabulary_size=VOCABULARY_SIZE, num_classes=2, embedding_size=32, maps=64),
    task=Classification(num_classes=2, inputs=("text",)),
    data=SpamAssassin(vocabulary_size=VOCABULARY_SIZE, length=700),
    optimizer=partial(optax.adamw, learning_rate=2e-3, weight_decay=0.01, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.05),
    batch_size=50,
    epochs=5,
)
