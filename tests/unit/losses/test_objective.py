"""Terms are bound to fields, averaged, weighted and added; what is wrong is named."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from facerestore.core.errors import (
    ConfigError,
    ResumeMismatch,
    ShapeError,
    TrainingDiverged,
    TrainingError,
    WiringError,
)
from facerestore.losses.objective import Objective, Term


def difference(pred: Tensor, target: Tensor, power: float = 1.0) -> Tensor:
    return (pred - target).abs().pow(power).flatten(1).mean(1)


def mean_of(pred: Tensor) -> Tensor:
    return pred.flatten(1).mean(1)


FIELDS = {
    "image": torch.tensor([[1.0, 3.0], [0.0, 0.0]]),
    "hq": torch.zeros(2, 2),
    "z": torch.tensor([[2.0], [4.0]]),
}


def test_terms_are_batch_means_weighted_and_added() -> None:
    image = FIELDS["image"].clone().requires_grad_()
    squares = partial(difference, power=2.0)
    objective = Objective([Term("l1", difference, 0.5), Term("mse", squares, 2.0)])
    loss, logs = objective(FIELDS | {"image": image})
    assert logs["l1"].item() == 1.0 and logs["mse"].item() == 2.5
    assert list(logs) == ["l1", "mse"]
    assert loss.item() == 0.5 * 1.0 + 2.0 * 2.5
    loss.backward()
    assert image.grad is not None and image.grad.tolist() == [[1.125, 3.125], [0.0, 0.0]]
    assert not any(value.requires_grad for value in logs.values())


def test_the_sum_is_linear_in_the_weights() -> None:
    def loss(first: float, second: float) -> float:
        terms = [Term("a", difference, first), Term("b", difference, second, pred="z", target="z_hq")]
        return Objective(terms)(FIELDS | {"z_hq": torch.ones(2, 1)})[0].item()

    assert loss(2.0, 3.0) == pytest.approx(2 * loss(1.0, 1.0) + (loss(1.0, 2.0) - loss(1.0, 1.0)))


def test_a_term_may_read_one_field_or_three() -> None:
    def weighted(pred: Tensor, target: Tensor, timestep: Tensor) -> Tensor:
        return difference(pred, target) * timestep

    terms = [
        Term("gan", mean_of, 1.0, pred="z", target=None),
        Term("late", weighted, 1.0, others=("timestep",)),
    ]
    objective = Objective(terms)
    assert objective.reads == {"z", "image", "hq", "timestep"}
    _, logs = objective(FIELDS | {"timestep": torch.tensor([10.0, 0.0])})
    assert logs["gan"].item() == 3.0 and logs["late"].item() == 10.0


def test_a_term_of_weight_zero_is_not_computed() -> None:
    def never(pred: Tensor, target: Tensor) -> Tensor:
        raise AssertionError("it was computed")

    loss, logs = Objective([Term("l1", difference), Term("off", never, 0.0, pred="nowhere")])(FIELDS)
    assert loss.item() == 1.0 and set(logs) == {"l1"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(bad: float) -> None:
    terms = [Term("l1", difference), Term("gan", mean_of, pred="z", target=None)]
    with pytest.raises(TrainingDiverged, match="'gan' is not finite") as caught:
        Objective(terms)(FIELDS | {"z": torch.tensor([[1.0], [bad]])})
    assert caught.value.term == "gan" and caught.value.step is None
    assert isinstance(caught.value, TrainingError)
    assert TrainingDiverged("gan", 12).step == 12 and "at step 12" in str(TrainingDiverged("gan", 12))


def test_a_missing_field_and_a_wrong_loss_are_named() -> None:
    with pytest.raises(WiringError, match="'l1' reads 'coarse', and there is only hq, image, z"):
        Objective([Term("l1", difference, pred="coarse")])(FIELDS)
    with pytest.raises(ShapeError, match="of the term 'map'"):
        Objective([Term("map", lambda pred, target: pred - target)])(FIELDS)
    with pytest.raises(ShapeError, match="of the term 'scalar'"):
        Objective([Term("scalar", lambda pred, target: (pred - target).mean())])(FIELDS)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_are_numbers_from_zero(weight: float) -> None:
    with pytest.raises(ConfigError, match="'l1' needs a weight"):
        Term("l1", difference, weight)


def test_names_are_there_and_differ_and_something_counts() -> None:
    with pytest.raises(ConfigError, match="a name"):
        Term("", difference)
    with pytest.raises(ConfigError, match="two terms are named 'l1'"):
        Objective([Term("l1", difference), Term("l1", difference)])
    with pytest.raises(ConfigError, match="above 0"):
        Objective([Term("l1", difference, 0.0)])


def test_the_networks_of_its_losses_move_with_it() -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, pred: Tensor, target: Tensor) -> Tensor:
            return difference(self.layer(pred), self.layer(target))

    learned = Learned().eval()
    objective = Objective([Term("learned", learned), Term("l1", difference)]).double()
    assert {p.dtype for p in objective.parameters()} == {torch.float64}
    assert objective.train().training and not learned.training and not learned.layer.training
    assert not objective.eval().training


def test_a_resume_with_other_settings_says_which() -> None:
    error = ResumeMismatch("runs/a", {"lr": (1e-4, 2e-4), "rank": (16, 32)})
    assert error.fields == {"lr": (1e-4, 2e-4), "rank": (16, 32)}
    assert "lr was 0.0001 and is 0.0002; rank was 16 and is 32" in str(error)
