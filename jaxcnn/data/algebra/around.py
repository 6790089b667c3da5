"""What the data sets around one other data set share."""

import jax

from jaxcnn.data.dataset import Dataset


class Around:
    """A data set with the entries and the classes of `data`."""

    data: Dataset

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.data.label_names

    @property
    def token_names(self) -> tuple[str, ...]:
        """See `agreement.check_tokens`."""
        return getattr(self.data, "token_names", ())

    @property
    def repeats(self) -> bool:
        """Whether a training example may come several times."""
        return getattr(self.data, "repeats", False)

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.data.spec()
