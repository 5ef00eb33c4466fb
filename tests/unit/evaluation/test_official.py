"""The CSV files of the official program, byte for byte.

`tests/data/ntire_csv` holds made numbers of 20 pictures and what `eval.py` of
zhengchen1999/NTIRE2025_RealWorld_Face_Restoration writes of them, with the thresholds of 2026. The numbers
are multiples of 1/64, so that no mean depends on the order in which it is added up.
"""

import json
from pathlib import Path

from facerestore.evaluation import NTIRE2026_CODE, Report, Row
from facerestore.evaluation.official import NAMES
from facerestore.evaluation.protocol import ALL
from facerestore.evaluation.score import failures, means, score_of

DATA = Path(__file__).parents[2] / "data" / "ntire_csv"
FID = 53.25189
OURS = {name: key for key, name in NAMES.items()}


def report() -> Report:
    rows: list[Row] = []
    for name, numbers in json.loads((DATA / "values.json").read_text()).items():
        subset = numbers.pop("Dataset")
        values = {OURS[key]: value for key, value in numbers.items()}
        rows.append(Row(key=f"{subset}/{name.removesuffix('.png')}", subset=subset, sha256={}, values=values))
    table = means(NTIRE2026_CODE, rows, list(NAMES))
    return Report(
        title="made",
        protocol=NTIRE2026_CODE,
        rows=tuple(rows),
        problems=(),
        cards={},
        absent={},
        table=table,
        distances={"fid-ffhq": FID},
        failures=tuple(failures(each, "identity-adaface", rows) for each in NTIRE2026_CODE.thresholds),
        score=score_of({key: mean.value for key, mean in table[ALL].items()} | {"fid-ffhq": FID}),
        accepted=True,
    )


def test_both_files_are_reproduced_byte_for_byte() -> None:
    total, pictures = report().official()
    assert total.encode() == (DATA / "total.csv").read_bytes()
    assert pictures.encode() == (DATA / "pictures.csv").read_bytes()


def test_the_official_total_is_our_score() -> None:
    made = report()
    last = (DATA / "total.csv").read_text().splitlines()[-1]
    assert made.score is not None
    assert abs(float(last.rpartition(",")[2]) - made.score.value) < 1e-12
    assert made.failures[0].counts[ALL] == 10
