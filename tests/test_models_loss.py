import pytest
import torch

from models.loss import LOSSES, bce, focal


@pytest.mark.parametrize("name", LOSSES)
def test_right_and_sure_costs_less_than_wrong_and_sure(name):
    labels = torch.tensor([1.0, 0.0])
    right, wrong = LOSSES[name](torch.tensor([4.0, -4.0]), labels), LOSSES[name](torch.tensor([-4.0, 4.0]), labels)
    assert 0 <= right < 0.1 < wrong


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_point_the_right_way_and_stay_finite(name):
    logits = torch.tensor([100.0, -100.0, 0.0, 0.0, 3.0], requires_grad=True)
    LOSSES[name](logits, torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[2] < 0 < logits.grad[3]


def test_focal_counts_easy_curves_less():
    easy, hard = torch.tensor([3.0]), torch.tensor([-1.0])
    one = torch.ones(1)
    assert focal(easy, one) / focal(hard, one) < 0.1 * bce(easy, one) / bce(hard, one)


def test_focal_is_the_published_formula():
    logit = torch.tensor([0.7])
    p = torch.sigmoid(logit)
    assert focal(logit, torch.ones(1)).item() == pytest.approx(
        (4 * 0.5 * (1 - p) ** 2 * -torch.log(p)).item(), rel=1e-5
    )
