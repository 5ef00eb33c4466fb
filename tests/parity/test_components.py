"""Eyes and mouths against GFPGAN's own script on the same points (see data/components.md)."""

import json
from pathlib import Path

import pytest

from facerestore.data import components_of_landmarks

RECORDED = json.loads((Path(__file__).parent / "data" / "components.json").read_text("utf-8"))


def test_parts_equal_those_of_gfpgans_script() -> None:
    components = components_of_landmarks(RECORDED["points_1024"], 1024)
    for name, parts in RECORDED["components_512"].items():
        ours = components.parts(f"images512x512/00000/{int(name):05d}.png")
        assert ours is not None
        assert ours.keys() == parts.keys()
        for part, values in parts.items():
            assert ours[part] == pytest.approx(values, abs=1e-9)
    assert components.faces["00000"]["left_eye"][2] == 16  # the least
    assert components.faces["00001"]["mouth"][2] > 16
