"""Kim's text CNN (widths 3, 4, 5, maximum over time), on the SpamAssassin mails: spam or not, from the body alone.

    python launch.py train experiments/spam_text_cnn.py

Expected: 98.21 % (n = 1) of the 1,175 held-out mails after 5 epochs; about 50 s of CPU time, on 2 shared cores of an Intel Xeon (family 6, model 167), 2026-11-22.
On the same split and tokens, scikit-learn's naive Bayes (binary counts, 9,998 tokens) has 97.96 % of the first 400 tokens and 98.30 % of
whole bodies, logistic regression on TF-IDF 98.55 % and 98.81 %; the majority 71.8 %. The mails: see jaxcnn/data/mails.py.
"""

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
