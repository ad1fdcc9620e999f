"""APGD, FAB, Square and AutoAttack against the reference implementation, at equal settings.

The reference is `autoattack` of github.com/fra31/auto-attack; the package `pyautoattack` is a copy of it.
"""

from importlib.util import find_spec

import pytest
import torch

from sslrob.builtin.apgd import APGD, TargetedAPGD
from sslrob.builtin.ascent import ascent
from sslrob.builtin.autoattack import AutoAttack
from sslrob.builtin.fab import FAB, TargetedFAB
from sslrob.builtin.hyperplane import onto
from sslrob.builtin.square import Square
from sslrob.objective import build
from sslrob.streams import Streams
from sslrob.threat_model import L1, L2, Linf

REFERENCE = next((name for name in ("autoattack", "pyautoattack") if find_spec(name)), "autoattack")
autoattack = pytest.importorskip(REFERENCE)
apgd, fab, square = (pytest.importorskip(f"{REFERENCE}.{name}") for name in ("autopgd_base", "fab_pt", "square"))
projections = pytest.importorskip(f"{REFERENCE}.fab_projections")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")

STEPS, QUERIES, IMAGES = 30, 200, 256
MODELS = {"Linf": Linf(0.02), "L2": L2(0.35), "L1": L1(2.5)}  # where about half of the images can be fooled
NORMS = pytest.mark.parametrize("norm", MODELS)


@pytest.fixture(scope="module")
def right(trained):
    """Those of the 256 images that the victim is right about, for both sides."""
    victim, batch = trained
    return batch[~victim.fooled(victim(batch.images), batch.targets)]


@pytest.fixture(scope="module")
def robust(trained):
    """(n,) bool: what an attack leaves."""
    victim, _ = trained

    def left(found, batch, threat_model):
        outside = threat_model.distance(found, batch.images) > 1.0001 * threat_model.epsilon  # FAB's may lie anywhere
        return ~victim.fooled(victim(found), batch.targets) | outside

    return left


@pytest.fixture(scope="module")
def ours(trained, robust):
    victim, _ = trained

    def attacked(attack, batch, threat_model, objective="task", seed=0):
        goal = build(objective, victim, batch, attack.access)
        found = attack.perturb(goal, batch.images.clone(), threat_model, streams=Streams(seed, batch.ids))
        assert threat_model.allows(found, batch.images).all()
        return robust(found, batch, threat_model)

    return attacked


@NORMS
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_takes_the_same_path(trained, right, norm, loss):
    """From the same start, step by step: the same highest loss for all but the few images whose path hangs on a rounding."""
    victim, _ = trained
    threat_model, labels = MODELS[norm], torch.tensor(right.targets)
    start = threat_model.random_start(right.images, Streams(0, right.ids))
    reference = apgd.APGDAttack(victim, n_iter=STEPS, norm=norm, eps=threat_model.epsilon, loss=loss, device="cpu")
    reference.init_hyperparam(right.images)
    _, _, wanted, _ = reference.attack_single_run(right.images.clone(), labels, x_init=start.clone())
    search = ascent(threat_model)(threat_model, right.images, start, STEPS, resumed=True)
    objective = build(f"task:{loss}", victim, right, "white-box")
    for step in range(STEPS + 1):
        x = search.x.detach().requires_grad_()
        feedback = objective(x)
        search.saw(feedback.loss.detach(), torch.autograd.grad(feedback.loss.sum(), x)[0])
        if step < STEPS:
            search.move(step)
    same = torch.isclose(search.highest_loss, wanted, rtol=1e-3, atol=1e-4)
    assert same.float().mean() > 0.95
    assert abs(float((search.highest_loss - wanted).median())) < 1e-4


@NORMS
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t"])
def test_gradient_attacks_leave_no_more_images(trained, right, ours, robust, norm, name):
    """Robust accuracy within about one image in 256, or lower."""
    victim, _ = trained
    threat_model, labels = MODELS[norm], torch.tensor(right.targets)
    settings = {"n_iter": STEPS, "norm": norm, "eps": threat_model.epsilon, "device": "cpu"}
    reference, mine, objective = {
        "apgd-ce": (lambda: apgd.APGDAttack(victim, loss="ce", **settings), APGD(STEPS), "task:ce"),
        "apgd-dlr": (lambda: apgd.APGDAttack(victim, loss="dlr", **settings), APGD(STEPS), "task:dlr"),
        "apgd-t": (lambda: apgd.APGDAttack_targeted(victim, n_target_classes=3, **settings), TargetedAPGD(STEPS, targets=3), "task"),
        "fab": (lambda: fab.FABAttack_PT(victim, **settings), FAB(STEPS, smallest=False), "task"),
        "fab-t": (
            lambda: fab.FABAttack_PT(victim, targeted=True, n_target_classes=3, **settings),
            TargetedFAB(STEPS, targets=3, smallest=False),
            "task",
        ),
    }[name]
    batch = right if name != "fab" else right[torch.arange(len(right)) < 64]
    theirs, left = [], []
    for seed in range(3 if name in ("apgd-ce", "apgd-dlr") else 1):  # one start more or less lucky moves either by some images
        attack = reference()
        attack.seed = seed
        theirs.append(robust(attack.perturb(batch.images.clone(), labels[: len(batch)].clone()), batch, threat_model).float().mean())
        left.append(ours(mine, batch, threat_model, objective, seed).float().mean())
    wanted, reached = (float(torch.stack(shares).mean()) for shares in (theirs, left))
    assert 0.1 < wanted < 0.9  # elsewhere the comparison says little
    slack = 4 if norm == "L1" else 1.5  # images: in L1 single starts, of the reference and ours alike, leave from 138 to 147 of 256
    assert reached <= wanted + slack / len(batch), f"{reached:.2%} left, the reference leaves {wanted:.2%}"


@NORMS
def test_square_leaves_no_more_images(trained, right, ours, robust, norm):
    """The reference paints the same squares on all images of a batch, ours each its own: within 3 %, or lower."""
    victim, _ = trained
    threat_model = {"Linf": Linf(0.03), "L2": L2(0.8), "L1": L1(20.0)}[norm]
    reference = square.SquareAttack(victim, n_queries=QUERIES, norm=norm, eps=threat_model.epsilon, seed=0, device="cpu")
    theirs = robust(reference.perturb(right.images.clone(), torch.tensor(right.targets)), right, threat_model)
    left = ours(Square(QUERIES), right, threat_model)
    assert 0.1 < float(theirs.float().mean()) < 0.95
    assert float(left.float().mean()) <= float(theirs.float().mean()) + 0.03


@NORMS
def test_projections_onto_a_hyperplane_are_the_same(norm):
    generator = torch.Generator().manual_seed(0)
    points, normals = torch.rand(32, 300, generator=generator), torch.randn(32, 300, generator=generator)
    gap = 20 * torch.randn(32, generator=generator)
    project = getattr(projections, f"projection_{norm.lower()}")
    wanted = project(points, normals, (points * normals).sum(1) - gap)
    assert torch.allclose(onto(points, normals, gap, MODELS[norm]), wanted, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_whole_is_as_strong(trained, right, ours, robust, norm):
    """With the published settings, on 64 images."""
    victim, _ = trained
    threat_model, part = MODELS[norm], right[torch.arange(len(right)) < 64]
    reference = autoattack.AutoAttack(victim, norm=norm, eps=threat_model.epsilon, device="cpu", seed=0)
    reference.verbose = False
    found = reference.run_standard_evaluation(part.images.clone(), torch.tensor(part.targets))
    theirs = robust(found[0] if isinstance(found, tuple) else found, part, threat_model)
    left = ours(AutoAttack(), part, threat_model)
    assert int(left.sum()) <= int(theirs.sum())
