"""Data sets made of data sets: frozen values around any `Dataset`, which touch nothing before they
are opened.

    HeldOut(data, 0.2)              a share of the training split becomes "eval"
    Fold(data, k, n)                fold k of n of the training split becomes "eval"
    Take(data, 1000)                fewer examples: a number, a share, or a range of rows
    Splits(train=a, eval=(b, "train"), test=b)
    Concat(a, b, …)                 one after another
    Mixed((a, b), (0.7, 0.3))       training examples of each in these shares
    Balanced(data)                  training examples of each class equally often
    Mapped(data, function)          a pure function of each example

Whatever is chosen depends on the data alone. An index is always the same example, so that batches
stay a pure function of (seed, step). Fields are reached by dotted overrides, `data.data.path=…`.
"""

from jaxcnn.data.algebra.holding_out import Fold as Fold
from jaxcnn.data.algebra.holding_out import HeldOut as HeldOut
from jaxcnn.data.algebra.mapped import Mapped as Mapped
from jaxcnn.data.algebra.mixtures import Balanced as Balanced
from jaxcnn.data.algebra.mixtures import Concat as Concat
from jaxcnn.data.algebra.mixtures import Mixed as Mixed
from jaxcnn.data.algebra.parts import Splits as Splits
from jaxcnn.data.algebra.parts import Take as Take
