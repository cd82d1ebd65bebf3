import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from models.loss import LOSSES, describe, parameters, select

SOFT = torch.tensor([0.99, 0.99, 0.01, 0.01, 0.01, 0.99])
LOGITS = torch.tensor([2.0, -1.0, 0.3, -4.0, 1.5, 0.7])


def slope(loss, logits, labels):
    """The loss's gradient on (B,) logits."""
    logits = logits.clone().requires_grad_()
    loss(logits, labels).backward()
    return logits.grad


@pytest.mark.parametrize("name", LOSSES)
def test_right_and_sure_costs_less_than_wrong_and_sure(name):
    labels, loss = torch.tensor([1.0, 0.0]), select(name)
    right, wrong = loss(torch.tensor([4.0, -4.0]), labels), loss(torch.tensor([-4.0, 4.0]), labels)
    assert 0 <= right < 0.1 < wrong


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_point_the_right_way_and_stay_finite(name):
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    found = slope(select(name), torch.tensor([100.0, -100.0, 0.0, 0.0, 3.0, 200.0, -200.0]), labels)
    assert torch.isfinite(found).all()
    assert found[2] < 0 < found[3]


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_the_values(name):
    loss = select(name)
    assert torch.autograd.gradcheck(lambda z: loss(z, SOFT.double()), LOGITS.double().requires_grad_())


def test_focal_is_to_the_bit_what_the_shipped_model_was_trained_with():
    def published(logits, labels):  # version 0.1, written out
        entropy = binary_cross_entropy_with_logits(logits, labels, reduction="none")
        p = torch.sigmoid(logits)
        wrong = labels * (1 - p) + (1 - labels) * p
        weight = 0.5 * labels + (1 - 0.5) * (1 - labels)
        return (weight * wrong**2.0 * entropy).mean() * 4

    torch.manual_seed(0)
    logits, labels = torch.randn(512) * 5, (torch.rand(512) < 0.5).float() * 0.98 + 0.01
    assert torch.equal(select("focal")(logits, labels), published(logits, labels))
    assert torch.equal(slope(select("focal"), logits, labels), slope(published, logits, labels))


def test_focal_is_the_published_formula():
    logit = torch.tensor([0.7])
    p = torch.sigmoid(logit)
    assert select("focal")(logit, torch.ones(1)).item() == pytest.approx(
        (4 * 0.5 * (1 - p) ** 2 * -torch.log(p)).item(), rel=1e-5
    )


def test_focal_counts_easy_curves_less():
    focal, bce, one = select("focal"), select("bce"), torch.ones(1)
    easy, hard = torch.tensor([3.0]), torch.tensor([-1.0])
    assert focal(easy, one) / focal(hard, one) < 0.1 * bce(easy, one) / bce(hard, one)


def test_asymmetric_focal_is_the_published_formula_of_each_class():
    loss = select("asymmetric_focal:alpha_event=0.7,alpha_none=0.2,gamma_event=1,gamma_none=3")
    logit = torch.tensor([0.7])
    p = torch.sigmoid(logit).item()
    log = torch.nn.functional.logsigmoid
    assert loss(logit, torch.ones(1)).item() == pytest.approx(4 * 0.7 * (1 - p) * -log(logit).item(), rel=1e-5)
    assert loss(logit, torch.zeros(1)).item() == pytest.approx(4 * 0.2 * p**3 * -log(-logit).item(), rel=1e-5)


def test_asymmetric_focal_contains_focal_and_cross_entropy():
    even = select("asymmetric_focal:alpha_event=0.5,alpha_none=0.5,gamma_event=2,gamma_none=2")
    torch.testing.assert_close(even(LOGITS, SOFT), select("focal")(LOGITS, SOFT))
    flat = select("asymmetric_focal:alpha_event=0.25,alpha_none=0.25,gamma_event=0,gamma_none=0")
    torch.testing.assert_close(flat(LOGITS, SOFT), select("bce")(LOGITS, SOFT))


@pytest.mark.parametrize("name", ["weighted_bce", "asymmetric_focal"])
def test_a_missed_event_costs_more_than_a_false_alarm(name):
    loss = select(name)
    missed, alarm = loss(torch.tensor([-1.0]), torch.ones(1)), loss(torch.tensor([1.0]), torch.zeros(1))
    assert missed > 2.5 * alarm


def test_dice_does_not_care_how_many_quiet_curves_stand_beside_the_events():
    few = (torch.tensor([2.0, -1.0, -20.0]), torch.tensor([1.0, 1.0, 0.0]))
    many = (torch.cat((few[0], torch.full((500,), -20.0))), torch.cat((few[1], torch.zeros(500))))
    torch.testing.assert_close(select("dice")(*few), select("dice")(*many))
    assert select("bce")(*many) < 0.02 * select("bce")(*few)


def test_sums_are_sums():
    focal, bce, dice = (select(name)(LOGITS, SOFT) for name in ("focal", "bce", "dice"))
    torch.testing.assert_close(select("focal_dice:weight_dice=0.5")(LOGITS, SOFT), focal + 0.5 * dice)
    torch.testing.assert_close(select("multi:weight_bce=2")(LOGITS, SOFT), 2 * bce + focal + dice)


def test_parameters_are_named_and_told():
    assert parameters("asymmetric_focal") == ("alpha_event", "alpha_none", "gamma_event", "gamma_none")
    told = describe("asymmetric_focal:gamma_none=3")
    assert told == {
        "name": "asymmetric_focal",
        "alpha_event": 0.75,
        "alpha_none": 0.25,
        "gamma_event": 1.0,
        "gamma_none": 3.0,
    }
    assert describe("bce") == {"name": "bce"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hinge", "'hinge' is none of focal, bce"),
        ("focal:delta=1", "no parameter 'delta'; it has alpha, gamma"),
        ("bce:alpha=1", "it has none"),
        ("focal:gamma=two", "gamma=two is no number"),
        ("focal:gamma", "gamma= is no number"),
        ("focal:gamma=2,gamma=3", "gamma stands twice"),
        ("focal:gamma=0.5", "gamma is 0.5; it is 0, or from 1 to 10"),
        ("focal:alpha=1.5", "from 0 to 1"),
        ("dice:smooth=nan", "from 0 to 100"),
        ("asymmetric_focal:alpha_none=-1", "from 0 to 100"),
    ],
)
def test_what_makes_no_sense_is_said(text, words):
    with pytest.raises(ValueError, match=words):
        select(text)


@pytest.mark.parametrize("name", ["focal", "bce", "asymmetric_focal"])
def test_where_raters_differ_the_best_logit_lies_between(name):
    """A focal loss sharpens a soft label (0.75 is best met by 0.92), but not without end, and keeps the order."""
    logits = torch.linspace(-12, 12, 481)
    best = []
    for label in (0.05, 0.25, 0.5, 0.75, 0.95):
        losses = [float(select(name)(one[None], torch.tensor([label]))) for one in logits]
        best.append(float(logits[losses.index(min(losses))]))
    assert best == sorted(set(best))
    assert -11 < best[0] < best[-1] < 11
