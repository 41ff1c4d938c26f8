"""Objectives without labels, masks and augmentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.pretraining import memory_pool, short_config
from ukb_infer.errors import UsageError
from ukb_infer.networks import EncoderSpec
from ukb_infer.training.objectives import PRETRAINING
from ukb_infer.training.objectives.contrastive import Contrastive
from ukb_infer.training.objectives.hybrid import Hybrid
from ukb_infer.training.objectives.unlabelled import Views
from ukb_infer.training.pretrain.augment import HEADS, Viewer, bodies, change_contrast, draw_moves, hidden_blocks, move
from ukb_infer.training.pretrain.batches import partners
from ukb_infer.training.pretrain.config import AUGMENT, make_pretrain_config

SPEC = EncoderSpec(dim=3, channels=1)


def _images(views: int, count: int = 4, side: int = 16) -> torch.Tensor:
    pool = memory_pool(count, side)
    return torch.from_numpy(pool.images.astype(np.float32)).reshape(count, 2, 1, side, side, side).transpose(0, 1)[
        :views
    ].clone()  # fmt: skip


def _views(objective: str, augment: str = "all", images: torch.Tensor | None = None, seed: int = 0) -> Views:
    kind = PRETRAINING[objective]()  # type: ignore[call-arg]
    images = _images(kind.views) if images is None else images
    viewer = Viewer(HEADS, AUGMENT[augment], kind.mask_ratio, kind.aligned)
    return viewer.views(images, torch.zeros(images.shape[1], dtype=torch.bool), np.random.default_rng(seed))


@pytest.mark.parametrize("objective", PRETRAINING)
def test_every_objective_has_finite_terms_that_train_its_encoder(objective: str) -> None:
    torch.manual_seed(0)
    kind = PRETRAINING[objective]()  # type: ignore[call-arg]
    network, views = kind.build_network(SPEC), _views(objective)
    terms = kind.terms(network(views.inputs), views, 0.5)
    torch.stack(list(terms.values())).sum().backward()
    assert all(bool(torch.isfinite(value)) for value in terms.values())
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []
    assert all(float(p.grad.abs().max()) > 0 for p in network.encoder.parameters() if p.ndim > 1)


@pytest.mark.parametrize("augment", AUGMENT)
def test_hidden_voxels_influence_nothing(augment: str) -> None:
    """Other values in hidden voxels: the same input, so the same reconstruction; the loss alone sees them."""
    torch.manual_seed(0)
    kind = PRETRAINING["mae"]()  # type: ignore[call-arg]
    network, images = kind.build_network(SPEC).eval(), _images(1)
    without_moves = "intensity" if augment in ("all", "intensity") else "none"
    views = _views("mae", without_moves, images)
    changed = torch.where(views.hidden, images + 5 * torch.rand_like(images), images)
    again = _views("mae", without_moves, changed)
    assert torch.equal(views.inputs, again.inputs)
    assert not torch.equal(views.targets, again.targets)
    if augment in ("all", "spatial"):  # moved first, masked after: the gradient of the input is 0 where it is hidden
        views = _views("mae", augment, images)
    inputs = views.targets.clone().requires_grad_()
    seen = torch.where(views.hidden, 0.0, inputs)
    outputs = network(seen)
    assert set(outputs) == {"reconstruction", "finer"}
    sum(image.square().sum() for image in outputs.values()).backward()
    assert float(inputs.grad[views.hidden].abs().max()) == 0.0
    assert float(inputs.grad[~views.hidden].abs().max()) > 0.0
    assert bool((views.inputs[views.hidden] == 0).all())


def test_the_loss_of_reconstruction_is_taken_where_voxels_are_hidden() -> None:
    kind, views = PRETRAINING["mae"](), _views("mae")  # type: ignore[call-arg]
    perfect = torch.where(views.hidden, views.targets, 77.0)
    assert float(kind.terms({"reconstruction": perfect}, views, 0.0)["reconstruction"]) == 0.0
    both = kind.terms({"reconstruction": perfect, "finer": perfect + 2.0}, views, 0.0)
    assert float(both["finer"]) == pytest.approx(2.0, rel=1e-5)  # half of the squared error
    wrong = torch.where(views.hidden, views.targets + 2.0, views.targets)
    assert float(kind.terms({"reconstruction": wrong}, views, 0.0)["reconstruction"]) == pytest.approx(4.0, rel=1e-5)


def test_masks_are_whole_blocks_of_the_right_share() -> None:
    hidden = hidden_blocks(5, (18, 16, 12), 0.6, np.random.default_rng(0))
    assert hidden.shape == (5, 1, 18, 16, 12)
    blocks = hidden[:, :, :16].reshape(5, 4, 4, 4, 4, 3, 4)
    counts = blocks.sum(dim=(2, 4, 6))
    assert set(counts.unique().tolist()) == {0, 64}
    assert float(hidden_blocks(4, (16, 16, 16), 0.6, np.random.default_rng(1)).float().mean()) == pytest.approx(38 / 64)
    flat = hidden_blocks(2, (128, 128), 0.5, np.random.default_rng(1))
    assert float(flat.float().mean()) == 0.5
    assert flat[0, 0, :8, :8].unique().numel() == 1
    assert not hidden_blocks(2, (8, 8, 8), 0.0, np.random.default_rng(1)).any()


def test_the_target_keeps_its_contrast_and_moves_with_the_input() -> None:
    images = _images(1)
    views = _views("mae", "intensity", images)
    assert torch.equal(views.targets, images)
    shown = ~views.hidden & (images != 0)
    assert float((views.inputs - views.targets)[shown].abs().mean()) > 0.05
    still = _views("mae", "none", images)
    assert torch.equal(still.inputs, torch.where(still.hidden, 0.0, images))
    moved = _views("mae", "spatial", images)
    assert float((moved.targets - images).abs().mean()) > 0.01
    assert torch.equal(moved.inputs, torch.where(moved.hidden, 0.0, moved.targets))


def test_contrast_changes_keep_the_order_of_tissues_and_the_background() -> None:
    ramp = torch.linspace(-2.9, 2.9, 16).reshape(1, 1, 16, 1, 1).repeat(3, 1, 1, 16, 16)
    ramp[:, :, :, :4] = 0.0
    only_map = replace(HEADS, bias=0.0, noise=0.0)
    for seed in range(5):
        changed = change_contrast(
            ramp, torch.ones_like(ramp[:, :1], dtype=torch.bool), only_map, np.random.default_rng(seed)
        )
        assert bool((changed[:, :, :, :4] == 0).all())
        inner = changed[:, 0, :, 10, 10]
        assert bool((inner.diff(dim=1) > -1e-5).all())
        assert float((inner - ramp[:, 0, :, 10, 10]).abs().max()) > 0.1
    fraction = torch.rand(2, 3, 32, 32)
    quiet = replace(bodies(1 / 64, -1.0), noise=0.0)
    seen = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    kept = [change_contrast(fraction, seen, quiet, np.random.default_rng(s))[:, 2] for s in range(20)]
    assert any(torch.equal(k, fraction[:, 2]) for k in kept)  # where nothing is blurred, fat fractions are as they were


def test_moving_by_nothing_changes_nothing_and_turns_are_rigid() -> None:
    images = _images(1)[0]
    still = torch.eye(3).repeat(len(images), 1, 1)
    same = move(images, torch.cat([still, torch.zeros(len(images), 3, 1)], dim=2), HEADS)
    assert torch.allclose(same, images, atol=1e-4)
    look = replace(HEADS, stretch=0.0, shift=0.0)
    maps = draw_moves(50, (48, 40, 32), look, np.random.default_rng(0))[:, ::-1, 2::-1]
    sides = np.array([48.0, 40.0, 32.0])
    turns = maps * sides[:, None] / sides[None, :]  # in voxels
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-5)
    assert set(np.sign(np.linalg.det(turns)).tolist()) == {-1.0, 1.0}  # some are mirrored


def test_pairs_of_a_session_move_alike_and_contrastive_views_do_not() -> None:
    images = _images(1)
    twice = images.repeat(2, 1, 1, 1, 1, 1)
    views = _views("hybrid", "spatial", twice)
    assert torch.equal(views.targets[0], views.targets[1])
    views = _views("contrastive", "spatial", twice)
    assert not torch.equal(views.targets[0], views.targets[1])


def test_partners_are_contrasts_first_then_visits_then_the_image_itself() -> None:
    rows = list(memory_pool(3).rows)
    rows[3] = replace(rows[3], session="ses-2")  # participant 1: t1 and t2 at two visits
    rows.append(replace(rows[2], session="ses-2"))  # and its t1 again
    found = partners(rows, np.array([0, 1, 2, 3, 4, 6]))
    assert found[0].tolist() == [1]
    assert found[2].tolist() == [6]
    assert found[3].tolist() == [6]
    assert found[4].tolist() == [4]


def test_the_terms_of_the_hybrid_are_the_published_ones() -> None:
    """Worked by hand: errors of 0.05 (square) and 1.05 (linear), latents at right angles."""
    images = torch.zeros(2, 2, 1, 4, 4, 4)
    views = Views(images, images, images.bool(), torch.tensor([False, True]))
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    outputs = {
        "reconstruction": images + 0.05, "cross": images + 1.05,
        "shared": torch.stack([one, other])[:, None, :, None].expand(2, 2, 2, 3),
        "modality": torch.stack([one, one])[:, None].expand(2, 2, 2), "kl": torch.tensor([2.0]),
    }  # fmt: skip
    terms = {name: float(value) for name, value in Hybrid().terms(outputs, views, 0.05).items()}
    expected = {"reconstruction": 3 * 0.5 * 0.05**2 / 0.1, "cross": 1.0, "shared": 0.5, "modality": 0.25, "kl": 0.001}
    assert terms == pytest.approx(expected, rel=1e-5)
    assert float(Hybrid().terms(outputs, views, 0.9)["kl"]) == pytest.approx(0.002)


def test_the_contrast_reaches_the_hybrids_reconstruction() -> None:
    """Norms remove what is the same everywhere; the vector must come through nevertheless."""
    torch.manual_seed(0)
    network = Hybrid().build_network(SPEC).eval()
    anatomy = torch.randn(1, 128, 1, 1, 1)
    made = [
        network._decode(anatomy, vector, torch.Size((16, 16, 16))) for vector in (torch.zeros(1, 32), torch.ones(1, 32))
    ]  # type: ignore[operator]
    assert float((made[0] - made[1]).abs().max().detach()) > 0.05


def test_contrastive_prefers_true_partners() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0)), dim=2)
    views = Views(vectors, vectors, vectors, torch.ones(6))
    alike = Contrastive().terms({"vectors": vectors.repeat(2, 1, 1)}, views, 0.0)["contrast"]
    wrong = torch.cat([vectors, vectors.roll(1, dims=1)])
    assert float(alike) < 0.1 < float(Contrastive().terms({"vectors": wrong}, views, 0.0)["contrast"])


def test_projections_can_be_varied_too() -> None:
    config = make_pretrain_config(2, "mae", steps=3)
    images = torch.full((1, 2, 3, 64, 64), -1.0)
    images[..., 16:48, 16:48] = torch.rand(1, 2, 3, 32, 32)
    viewer = Viewer(bodies(1 / 64, -1.0), config.augment, 0.6)
    views = viewer.views(images, torch.ones(2, dtype=torch.bool), np.random.default_rng(3))
    assert bool(torch.isfinite(views.inputs).all())
    assert float(views.targets[..., 0, 0].max()) == pytest.approx(-1.0, abs=1e-5)  # outside stays outside
    network = config.objective.build_network(config.spec)
    assert network(views.inputs)["reconstruction"].shape == images.shape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "may"}, "`objective`: unknown 'may'.*choices: mae"),
        ({"augment": "al"}, "`augment`: unknown 'al'; did you mean all"),
        ({"steps": 0}, "`steps`: got 0, expected 1 or more"),
        ({"size": "48,48"}, "`size`: .*three numbers"),
        ({"size": "8,8,8"}, "`size`: .*at least 16"),
        ({"dim": 4}, "`dim`: got 4, expected 2 or 3"),
        ({"learning_rate": -1.0}, "`learning_rate`"),
    ],
)
def test_settings_that_are_not_allowed_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_pretrain_config(**changes)  # type: ignore[arg-type]


def test_settings_come_out_flat() -> None:
    flat = short_config(steps=7, augment="spatial").flat()
    assert (flat["steps"], flat["objective"], flat["intensity"], flat["size"]) == (7, "mae", False, [16, 16, 16])
