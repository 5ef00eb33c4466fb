"""What went into a training run, in a few lines for its card."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facerestore.data.index import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """A data set in a few numbers.

    Attributes:
        hash: 16 hex digits over the keys and contents of all pictures, in whatever order.
        pictures: how many.
        licences: how many under each licence, the commonest first; "not stated" where no list says it.
    """

    hash: str
    pictures: int
    licences: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"hash": self.hash, "pictures": self.pictures, "licences": self.licences}


def fingerprint(entries: Sequence[Entry]) -> Fingerprint:
    """The fingerprint of entries that were scanned: equal keys and contents, equal hash."""
    lines = sorted(f"{entry.sha256} {entry.key}\n" for entry in entries)
    licences = Counter(entry.facts.get("licence") or "not stated" for entry in entries)
    digest = hashlib.sha256("".join(lines).encode())
    return Fingerprint(
        hash=digest.hexdigest()[:16], pictures=len(entries), licences=dict(licences.most_common())
    )
