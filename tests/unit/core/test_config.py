"""Configurations: override by path, unknown names, fingerprints."""

from dataclasses import dataclass
from typing import Literal

import pytest

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Config):
    size_px: Literal["auto", 128, 256] = "auto"
    limit: float | None = None
    on: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Config):
    name: str = "a"
    parts: tuple[Inner, ...] = (Inner(), Inner())
    sizes: tuple[int, ...] = (1,)
    only: int = 3


def test_override_reads_each_type() -> None:
    config = Outer()
    assert config.override("parts.1.size_px", "128").parts[1].size_px == 128
    assert config.override("parts.0.size_px", "auto").parts[0].size_px == "auto"
    assert config.override("parts.0.limit", "2.5").parts[0].limit == 2.5
    assert config.override("parts.0.limit", "none").parts[0].limit is None
    assert config.override("parts.0.on", "no").parts[0].on is False
    assert config.override("sizes", "3, 4").sizes == (3, 4)
    assert config.override("only", "7").only == 7
    assert config == Outer(), "the original is untouched"


def test_a_bare_name_finds_the_only_field_below() -> None:
    single = Outer(parts=(Inner(),))
    assert single.override("size_px", "256").parts[0].size_px == 256
    with pytest.raises(ConfigError, match=r"several fields: parts\.0\.size_px, parts\.1\.size_px"):
        Outer().override("size_px", "256")


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("nam", "x", "did you mean 'name'"),
        ("parts.0.size_px", "100", "not one of auto, 128, 256"),
        ("parts.2.on", "yes", "no index below 2"),
        ("parts.0.on", "maybe", "neither true nor false"),
        ("only", "three", "no int"),
        ("name.first", "x", "below a plain value"),
        ("parts.0", "x", "name a field"),
    ],
)
def test_override_says_what_is_wrong(path: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Outer().override(path, text)


def test_fingerprint_follows_the_settings() -> None:
    assert Outer().fingerprint() == Outer().fingerprint()
    changed = {
        Outer().override(path, text).fingerprint()
        for path, text in [("name", "b"), ("parts.0.on", "no"), ("parts.1.on", "no"), ("sizes", "2")]
    }
    assert len(changed | {Outer().fingerprint()}) == 5
