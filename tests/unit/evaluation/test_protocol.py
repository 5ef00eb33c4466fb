"""Protocols by name, and those of a file of one's own."""

from pathlib import Path

import pytest

from facerestore.core.errors import ConfigError
from facerestore.evaluation import NTIRE2026_CODE, PROTOCOLS, Column, find_protocol
from facerestore.evaluation.measuring import weights_of
from facerestore.evaluation.protocol import read_thresholds
from facerestore.metrics import card


def written(folder: Path, text: str) -> str:
    path = folder / "ours.toml"
    path.write_text(text)
    return str(path)


def test_every_named_protocol_names_metrics_that_there_are() -> None:
    for name, protocol in PROTOCOLS.items():
        assert find_protocol(name) is protocol
        for column in protocol.columns:
            assert (card(column.metric).compares == "nothing") == (column.against == "")
        assert weights_of(protocol)
    assert len({protocol.fingerprint() for protocol in PROTOCOLS.values()}) == len(PROTOCOLS)


def test_a_file_starts_from_a_protocol_and_replaces_what_it_names(tmp_path: Path) -> None:
    made = find_protocol(
        written(tmp_path, 'base = "ntire2026-code"\n[subsets]\nMine = 3\n[thresholds]\nMine = 0.4\n')
    )
    assert made.name == "ours" and made.columns == NTIRE2026_CODE.columns
    assert [(subset.name, subset.count) for subset in made.subsets] == [("Mine", 3)]
    assert made.thresholds[0].of("Mine") == 0.4
    assert made.score == "ntire"
    other = find_protocol(written(tmp_path, 'base = "papers"\ncolumns = ["psnr@hq", "niqe-basicsr"]\n'))
    assert other.columns == (Column(metric="psnr", against="hq"), Column(metric="niqe-basicsr"))
    alone = find_protocol(written(tmp_path, 'name = "x"\ncolumns = ["ssim@hq"]\nside_px = 256\n'))
    assert (alone.name, alone.side_px, alone.distances) == ("x", 256, ())


def test_other_columns_have_no_score(tmp_path: Path) -> None:
    text = 'base = "ntire2026-code"\ncolumns = ["musiq"]\n'
    assert find_protocol(written(tmp_path, text)).score == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('colums = ["psnr"]', "colums is no field"),
        ('columns = ["psnr@gt"]', "@lq, @hq and @ffhq"),
        ("columns = []", "nothing is measured"),
        ('columns = ["psnr@hq", "psnr@hq"]', "named once"),
        ('columns = ["psnr@hq"]\nside_px = "large"', "of type int"),
        ('columns = ["psnr@hq"]\n[subsets]\nA = "three"', "SUBSET = NUMBER"),
        ('columns = ["psnr@hq"]\n[thresholds]\nA = 0.5', "A is no subset"),
        ('base = "ntire2031"', "there is no protocol"),
        ("columns = [", "cannot be read as TOML"),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_protocol(written(tmp_path, text))


def test_thresholds_of_a_file_decide_and_the_protocols_own_are_counted_beside(tmp_path: Path) -> None:
    path = tmp_path / "strict.toml"
    path.write_text("CelebA = 0.9\n")
    made = read_thresholds(path, NTIRE2026_CODE)
    assert [each.name for each in made.thresholds] == ["strict", "code", "report"]
    assert made.thresholds[0].of("CelebA") == 0.9 and made.thresholds[0].of("LFW-Test") is None
    path.write_text("Celeb = 0.9\n")
    with pytest.raises(ConfigError, match="Celeb is no subset of ntire2026-code"):
        read_thresholds(path, NTIRE2026_CODE)
