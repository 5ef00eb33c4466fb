"""What a trainer reads: which pictures, in which order, and what is known of them.

A reader (`index_folder`, `index_pairs`, `index_list`, `index_ffhq`, `index_shards`, `index_table`) makes an
`Index`, which names what it left out and why. `Pictures` reads its entries as samples, `WithBoxes` and
`Cached` add to them, and `batches` reads them ahead in an `Order` that is a function of a seed and a
position.

May import `faces` and below. Knows nothing of losses, stages or training.
"""

from facerestore.data.augment import Augment, augmented
from facerestore.data.cached import Cached, content_seed, fill
from facerestore.data.components import (
    Components,
    WithBoxes,
    components_of_landmarks,
    find_components,
    read_components,
    read_landmarks,
    with_parts_only,
    write_components,
)
from facerestore.data.ffhq import ffhq_landmarks, index_ffhq
from facerestore.data.filters import Limits, within
from facerestore.data.fingerprint import Fingerprint, fingerprint
from facerestore.data.folder import index_folder, index_list, index_pairs
from facerestore.data.index import Entry, Index, Place, Removed, balanced, held_back, select
from facerestore.data.loader import Batch, batches
from facerestore.data.measures import Measures, measure, measure_all, write_measures
from facerestore.data.order import Order, positions
from facerestore.data.pictures import Dataset, Listed, Pictures, Sample, stacked
from facerestore.data.scan import Checks
from facerestore.data.shards import index_shards
from facerestore.data.statistics import measure_statistics, read_statistics, write_statistics
from facerestore.data.table import index_table

__all__ = [
    "Augment",
    "Batch",
    "Cached",
    "Checks",
    "Components",
    "Dataset",
    "Entry",
    "Fingerprint",
    "Index",
    "Limits",
    "Listed",
    "Measures",
    "Order",
    "Pictures",
    "Place",
    "Removed",
    "Sample",
    "WithBoxes",
    "augmented",
    "balanced",
    "batches",
    "components_of_landmarks",
    "content_seed",
    "ffhq_landmarks",
    "fill",
    "find_components",
    "fingerprint",
    "held_back",
    "index_ffhq",
    "index_folder",
    "index_list",
    "index_pairs",
    "index_shards",
    "index_table",
    "measure",
    "measure_all",
    "measure_statistics",
    "positions",
    "read_components",
    "read_landmarks",
    "read_statistics",
    "select",
    "stacked",
    "with_parts_only",
    "within",
    "write_components",
    "write_measures",
    "write_statistics",
]
