"""The manifest describes what ships, and nothing else ships."""

import hashlib
from pathlib import Path

import pytest

from facerestore.weights.spec import WeightSpec
from facerestore.weights.store import WeightStore

SHIPPED = Path(__file__).parents[3] / "weights"


def test_every_file_is_described_and_every_description_has_a_file() -> None:
    described = [spec.file for spec in WeightStore().specs()]
    assert sorted(described) == sorted(path.name for path in SHIPPED.glob("*.safetensors"))
    assert len({spec.name for spec in WeightStore().specs()}) == len(described)


@pytest.mark.parametrize("spec", WeightStore().specs(), ids=lambda spec: spec.name)
def test_bytes_hash_and_licence_are_true(spec: WeightSpec) -> None:
    content = (SHIPPED / spec.file).read_bytes()
    assert len(content) == spec.bytes
    assert hashlib.sha256(content).hexdigest() == spec.sha256
    assert len((SHIPPED / "LICENSES" / f"{spec.name}.txt").read_text(encoding="utf-8")) > 500
    assert f"`{spec.file}`" in (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert all((spec.licence, spec.source, spec.citation, spec.net, spec.note))


def test_all_of_it_stays_below_80_mb() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.safetensors")) < 80e6
