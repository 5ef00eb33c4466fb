"""The published table of NTIRE 2026 comes out of its own columns; means and failures are counted as there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from facerestore.evaluation import NTIRE2026_CODE, NTIRE2026_REPORT, PAPERS, Row, ntire_score
from facerestore.evaluation.protocol import ALL
from facerestore.evaluation.score import accepted, failures, means, score_of

TABLE = json.loads((Path(__file__).parents[2] / "data" / "ntire2026_table1.json").read_text())["rows"]


@pytest.mark.parametrize("team", TABLE, ids=lambda team: team["team"])
def test_the_published_scores_follow_from_their_columns(team: dict[str, float]) -> None:
    terms = {name: team[name] for name in ("niqe", "clipiqa", "maniqa", "musiq", "qalign", "fid")}
    assert ntire_score(**terms) == pytest.approx(team["score"], abs=1e-4)


@pytest.mark.parametrize("team", TABLE, ids=lambda team: team["team"])
def test_ten_failures_pass_and_eighty_two_do_not(team: dict[str, float]) -> None:
    fails = int(team["n_id_failures"])
    rows = [row("CelebA", str(n), {"identity-adaface": 0.1 if n < fails else 0.9}) for n in range(100)]
    counted = failures(NTIRE2026_CODE.thresholds[0], "identity-adaface", rows)
    assert counted.counts[ALL] == fails
    assert accepted(NTIRE2026_CODE, counted) is team["id_passed"]


def row(subset: str, name: str, values: dict[str, float]) -> Row:
    return Row(key=f"{subset}/{name}", subset=subset, sha256={}, values=values)


def test_a_worse_number_never_raises_the_score() -> None:
    best = {"niqe": 3.0, "clipiqa": 0.9, "maniqa": 0.9, "musiq": 77.0, "qalign": 4.5, "fid": 50.0}
    whole = ntire_score(**best)
    for name in best:
        worse = best | {name: best[name] * (2 if name in ("niqe", "fid") else 0.5)}
        assert ntire_score(**worse) < whole
    assert ntire_score(**(best | {"niqe": 12.0})) == ntire_score(**(best | {"niqe": 10.0})), "never below 0"
    assert ntire_score(**(best | {"fid": 120.0})) == ntire_score(**(best | {"fid": 100.0}))


def test_a_score_names_what_it_lacks() -> None:
    whole = {"niqe-pyiqa": 3.0, "clipiqa": 0.9, "maniqa": 0.9, "musiq": 77.0, "qalign": 4.5, "fid-ffhq": 50.0}
    assert score_of(whole).missing == ()
    without = {key: value for key, value in whole.items() if key not in ("qalign", "niqe-pyiqa")}
    partial = score_of(without | {"niqe-basicsr": 3.0})
    assert partial.missing == ("niqe", "qalign"), "the other NIQE is no term"
    assert partial.value == pytest.approx(score_of(whole).value - 0.7 - 0.9)


def test_the_mean_over_all_weighs_subsets_by_their_nominal_counts() -> None:
    rows = [row("CelebA", str(n), {"musiq": 60.0}) for n in range(3)]
    rows += [row("CelebChild-Test", "a", {"musiq": 30.0}), row("CelebChild-Test", "b", {})]
    table = means(NTIRE2026_CODE, rows, ["musiq"])
    assert table["CelebA"]["musiq"].value == 60 and table["CelebA"]["musiq"].expected == 100
    assert table["CelebChild-Test"]["musiq"].measured == 1
    assert table["LFW-Test"]["musiq"].value is None
    assert table[ALL]["musiq"].value == pytest.approx((60 * 100 + 30 * 50) / 150)


def test_without_subsets_every_picture_weighs_the_same() -> None:
    rows = [row("", str(n), {"psnr": float(n)}) for n in range(4)]
    assert means(PAPERS, rows, ["psnr"])[ALL]["psnr"].value == 1.5


def test_a_similarity_at_the_threshold_passes_and_the_two_counts_differ() -> None:
    near = {"identity-adaface": 0.25}
    rows = [row("WebPhoto-Test", "a", near), row("Wider-Test", "b", {"identity-adaface": 0.19})]
    rows.append(row("LFW-Test", "c", {}))
    code, report = (failures(each, "identity-adaface", rows) for each in NTIRE2026_CODE.thresholds)
    assert (code.counts[ALL], report.counts[ALL]) == (1, 2)
    assert code.unjudged == 1
    assert accepted(NTIRE2026_CODE, code) is None, "a face without a similarity could be the eleventh"
    assert NTIRE2026_REPORT.thresholds == NTIRE2026_CODE.thresholds[::-1]


def test_no_limit_no_verdict() -> None:
    assert accepted(replace(NTIRE2026_CODE, most_failures=None), None) is None
