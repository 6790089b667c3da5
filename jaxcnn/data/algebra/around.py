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

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.data.spec()
