"""What judges identity is never trained against: no loss reaches it, by whatever way."""

import ast
from pathlib import Path

JUDGE = {"facerestore.features.description", "facerestore.nets.faceres"}


def imported(file: Path) -> set[str]:
    """Every module of the package that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("facerestore")}


def reached(repo: Path, start: set[str]) -> set[str]:
    """These modules and all that they import, and so on."""
    seen: set[str] = set()
    while todo := start - seen:
        for name in todo:
            path = repo.joinpath(*name.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            start = start | (imported(file) if file.is_file() else set())
        seen |= todo
    return seen


def test_no_loss_reaches_the_judge(repo: Path):
    folder = repo / "facerestore" / "losses"
    losses = {".".join(file.relative_to(repo).with_suffix("").parts) for file in sorted(folder.rglob("*.py"))}
    assert "facerestore.losses.identity" in losses
    every = reached(repo, losses)
    assert "facerestore.nets.iresnet" in every  # it is followed beyond the first step
    assert not every & JUDGE
    assert all("face-description" not in file.read_text("utf-8") for file in folder.rglob("*.py"))


def test_it_would_be_found(repo: Path):
    assert reached(repo, {"facerestore.features.description"}) >= JUDGE
