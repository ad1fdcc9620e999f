"""Universal moves: learned from the fit split alone, one for all images, kept in the run, used again elsewhere."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from sslrob import cli, zoo
from sslrob.builtin.data_free import DataFree
from sslrob.builtin.deepfool_uap import DeepFoolUAP
from sslrob.builtin.universal import UAP
from sslrob.data import Batch
from sslrob.errors import RunFailed, SslrobError
from sslrob.execute import run
from sslrob.learning import DRAFT
from sslrob.objective import build
from sslrob.plugins import installed
from sslrob.resolve import Words, resolve
from sslrob.runs import Run
from sslrob.spec import Spec
from sslrob.streams import Streams
from sslrob.testing import LinearVictim, toys
from sslrob.threat_model import L1, L2, Linf
from sslrob.universal import FILE, Move, find, in_ball, load, save, told

NORMS = pytest.mark.parametrize("norm", [Linf, L2, L1], ids=lambda norm: norm.__name__)


def learned(attack, batch, victim, threat_model, name="task"):
    lessons = [(build(name, victim, batch, "white-box"), batch.images)]
    return attack.fit(lessons, threat_model, streams=Streams(0, batch.ids, "fit")).move


@pytest.fixture
def one_class():
    """The images of class 1 of the linear victim: one move can fool them all."""
    toy = toys()["classification"]
    batch = toy.batch()
    return toy.victim, batch[torch.tensor(batch.targets) == 1]


# closed forms


def test_on_a_linear_victim_the_move_is_the_steepest_one(one_class):
    victim, batch = one_class
    weight = victim.weight.detach()
    move = learned(UAP(steps=60, step_size=0.2), batch, victim, Linf(0.005))
    assert torch.allclose(move, -0.005 * weight.sign(), atol=1e-6)
    move = learned(UAP(steps=60, step_size=0.2), batch, victim, L2(0.1))
    assert torch.allclose(move, -0.1 * weight / weight.norm(), atol=1e-3)
    move = learned(UAP(steps=60, step_size=0.2), batch, victim, L1(0.3))
    assert float(-(move * weight).sum()) == pytest.approx(0.3 * float(weight.abs().max()), rel=0.02)


@pytest.mark.parametrize("norm", [Linf, L2], ids=lambda norm: norm.__name__)
def test_deepfool_fools_all_images_that_one_move_can(one_class, norm):
    victim, batch = one_class
    radius = float(victim.radius(batch.images, norm).max())
    for factor, share in ((0.95, 1.0), (1.3, 0.0)):
        threat_model = norm(factor * radius)
        move = learned(DeepFoolUAP(images=60), batch, victim, threat_model)
        found = Move(move).perturb(None, batch.images, threat_model, streams=Streams(0, batch.ids))
        right = ~victim.fooled(victim(found), batch.targets)
        assert bool(right.any()) == bool(share)
    weight = victim.weight.detach().flatten()
    if norm is L2:
        assert float(torch.cosine_similarity(-move.flatten(), weight, dim=0)) > 0.99


def test_deepfool_leaves_alone_what_is_wrong_already(one_class):
    victim, batch = one_class
    wrong = Batch(batch.ids, batch.images, (0,) * len(batch))
    assert not learned(DeepFoolUAP(images=6), wrong, victim, Linf(0.1)).any()


def test_without_data_the_identity_is_lifted_by_any_corner_of_the_ball():
    """On one colour of grey the square of what the toy backbone sees is that of the move itself."""
    toy = toys()["segmentation"]
    feature_fool = DataFree(steps=60, step_size=0.3, noises=1, mean=(0.5, 0.5), deviation=(0.0, 0.0))
    move = learned(feature_fool, toy.batch(), toy.victim, Linf(0.03), "activation:lift")
    assert torch.allclose(move.abs(), torch.full_like(move, 0.03), atol=1e-6)
    brighter = learned(DataFree(steps=60, mean=(0.6, 0.7)), toy.batch(), toy.victim, Linf(0.03), "activation:lift:pooled")
    assert torch.allclose(brighter, torch.full_like(move, 0.03), atol=1e-6)  # away from grey


class Secret:
    """A label that nobody may look at."""

    def __getattribute__(self, name):
        raise AssertionError("looked at a label")

    def __eq__(self, other):
        raise AssertionError("compared a label")

    __hash__ = None


@pytest.mark.parametrize(
    ("attack", "objective"),
    [
        (DataFree(steps=3), "activation:log-lift"),
        (DataFree(steps=3, images=0.01), "activation:lift"),
        (UAP(steps=3), "activation:lift:map0+map1"),
        (UAP(steps=3), "activation:dispersion"),
        (UAP(steps=3), "embedding:l2:middle"),
    ],
    ids=["feature-fool", "l4a-ugs", "l4a-fuse", "dispersion", "ssp"],
)
def test_representation_attacks_use_no_labels(attack, objective):
    toy = toys()["detection"]
    batch = toy.batch()
    secret = Batch(batch.ids, batch.images, tuple(Secret() for _ in batch.targets))
    assert learned(attack, secret, toy.victim, Linf(0.03), objective).any()


def test_without_images_only_a_shape_is_read():
    toy, seen = toys()["segmentation"], []

    class Once:
        def __iter__(self):
            batch = toy.batch()
            for i in range(9):
                seen.append(i)
                yield build("activation", toy.victim, batch, "white-box"), batch.images

    def move(images, settings=DataFree(steps=20)):  # noqa: B008
        batch = Batch(toy.batch().ids, images, toy.batch().targets)
        return learned(settings, batch, toy.victim, Linf(0.03), "activation")

    DataFree(steps=20).fit(Once(), Linf(0.03), streams=Streams(0, toy.dataset.ids, "fit"))
    assert seen == [0, 0]  # once for the start, once for the goal
    assert torch.equal(move(toy.batch().images), move(torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))))
    with_images = DataFree(steps=20, images=5.0)
    assert not torch.equal(move(toy.batch().images, with_images), move(torch.rand_like(toy.batch().images) * 0 + 0.2, with_images))


@pytest.mark.parametrize("setting", [{"mean": (0.6, 0.4)}, {"deviation": (-0.1, 0.1)}, {"mean": (0.5, 1.5)}])
def test_ranges_of_noise(setting):
    with pytest.raises(ValueError, match="no range"):
        DataFree(**setting)


# the move and the images


@NORMS
def test_it_is_one_move_for_all_images_each_projected_alone(norm):
    threat_model = norm({Linf: 0.05, L2: 0.4, L1: 3.0}[norm])
    batch = toys()["segmentation"].batch()
    move = in_ball(threat_model.random_move(batch.images[:1], Streams(1, ["a"]))[0], threat_model)
    grey = Batch(("a", "b"), torch.stack([torch.full((3, 8, 8), 0.4), torch.full((3, 8, 8), 0.6)]), (None, None))
    found = Move(move).perturb(None, grey.images, threat_model, streams=Streams(0, grey.ids)) - grey.images
    assert torch.allclose(found, move.expand(2, 3, 8, 8), atol=1e-6)
    found = Move(move).perturb(None, batch.images, threat_model, streams=Streams(0, batch.ids))  # black and white pixels among them
    assert threat_model.allows(found, batch.images).all()
    assert torch.equal(found, threat_model.project(batch.images + move, batch.images))


@NORMS
@pytest.mark.parametrize("size", [(4, 4), (16, 8), (13, 21)], ids=str)
def test_images_of_another_shape_get_it_resized_and_stay_in_the_ball(norm, size):
    threat_model = norm({Linf: 0.05, L2: 0.4, L1: 3.0}[norm])
    move = in_ball(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0)), threat_model)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    found = Move(move).perturb(None, images, threat_model, streams=Streams(0, ["a", "b"]))
    assert threat_model.allows(found, images).all()
    assert not torch.equal(found, images)


def test_it_learns_from_images_of_several_shapes():
    toy = toys()["segmentation"]
    large = torch.nn.functional.interpolate(toy.batch().images, (12, 8))
    lessons = [
        (build("activation", toy.victim, Batch(toy.batch().ids, x, (None,) * 4), "white-box"), x) for x in (toy.batch().images, large)
    ]
    for attack in (UAP(steps=6), DataFree(steps=6), DataFree(steps=6, images=1.0)):
        assert attack.fit(lessons, Linf(0.03), streams=Streams(0, toy.dataset.ids, "fit")).move.shape == (3, 8, 8)


def test_one_bad_gradient_does_not_spoil_the_move(one_class):
    class Broken(LinearVictim):
        def loss(self, outputs, targets, name, progress):
            return super().loss(outputs, targets, name, progress) * torch.tensor([float("nan")] + [1.0] * (len(outputs) - 1))

    _, batch = one_class
    victim = Broken()
    assert torch.allclose(
        learned(UAP(steps=60, step_size=0.2), batch, victim, Linf(0.005)), -0.005 * victim.weight.detach().sign(), atol=1e-6
    )


def test_losses_above_the_clip_pull_no_more(one_class):
    victim, batch = one_class  # margins of 2, 3 and 4: losses of -2, -3 and -4
    start = learned(UAP(steps=1, step_size=1e-9), batch, victim, Linf(0.005))
    assert torch.allclose(learned(UAP(steps=60, clip=-4.5), batch, victim, Linf(0.005)), start, atol=1e-6)
    assert not torch.allclose(learned(UAP(steps=60, clip=-1.0), batch, victim, Linf(0.005)), start, atol=1e-4)


def test_an_attack_that_has_learned_nothing_says_so(one_class):
    victim, batch = one_class
    with pytest.raises(SslrobError, match="UAP has learned nothing yet"):
        UAP().perturb(build("task", victim, batch, "white-box"), batch.images, Linf(0.1), streams=Streams(0, batch.ids))
    with pytest.raises(SslrobError, match="no images to learn"):
        UAP().fit([], Linf(0.1), streams=Streams(0, []))


# files


def test_a_file_comes_back_and_is_always_the_same(tmp_path):
    move = Move(torch.rand(3, 8, 8) - 0.5)
    for name in ("a", "b"):
        save(tmp_path / name, move, {"threat_model": "linf:4/255", "attack": {"id": "uap"}, "learned_on": "x"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(load(tmp_path / "a").move, move.move)
    assert told(tmp_path / "a")["threat_model"] == "linf:4/255"
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(RunFailed, match="cannot write"):
        save(tmp_path / "nowhere" / "a", move, {})


@pytest.mark.parametrize("cut", [0, 7, 100, -50])
def test_a_torn_file_is_refused(tmp_path, cut):
    path = tmp_path / FILE
    save(path, Move(torch.rand(3, 8, 8)), {})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SslrobError, match="not a whole safetensors file") as caught:
        load(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("tensors", "metadata", "says"),
    [
        ({"move": torch.zeros(3, 4, 4)}, None, "no universal move that this version"),
        ({"move": torch.zeros(3, 4, 4)}, {"sslrob": "[]"}, "no universal move that this version"),
        ({"move": torch.zeros(3, 4, 4)}, {"sslrob": '{"format": 99}'}, "no universal move that this version"),
        ({"move": torch.zeros(1, 3, 4, 4)}, {"sslrob": '{"format": 1}'}, r"but torch.float32 \(1, 3, 4, 4\)"),
        ({"move": torch.zeros(4, 4, 3)}, {"sslrob": '{"format": 1}'}, r"but torch.float32 \(4, 4, 3\)"),
        ({"move": torch.zeros(3, 4, 4, dtype=torch.int8)}, {"sslrob": '{"format": 1}'}, "but torch.int8"),
        ({"other": torch.zeros(3, 4, 4)}, {"sslrob": '{"format": 1}'}, "but none"),
        ({"move": torch.full((3, 4, 4), float("nan"))}, {"sslrob": '{"format": 1}'}, "NaN"),
    ],
)
def test_what_is_no_move_is_refused(tmp_path, tensors, metadata, says):
    save_file(tensors, tmp_path / FILE, metadata)
    with pytest.raises(SslrobError, match=says):
        load(tmp_path / FILE)


# in a run: a k-NN head on small backbones that are not trained


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three colours, a split to look at and one to learn from."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, n in (("test", 5), ("train", 12)):
        for c, name in enumerate(("blue", "green", "red")):
            for i in range(n):
                pixels = rng.integers(110, 140, (8, 8, 3))
                pixels[:, :, 2 - c] += rng.integers(25, 40)
                file = folder / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    return folder


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def question(folder, backbone="small", fit="train", **words):
    known = {"task": "classification", "format": "imagefolder", "path": folder / "test", "threat_model": "linf:16/255", "license": "none"}
    dataset = zoo.Dataset(**known, default=True, fit=zoo.FitSplit(path=folder / fit) if fit else None)
    common = {"use": "mini-resnet", "settings": {"widths": [8, 16], "blocks": [1, 1]}, "license": "none"}
    bodies = {"small": zoo.Backbone(**common, seed=4), "other": zoo.Backbone(**common, seed=6)}
    head = {"dataset": "colours", "kind": "knn", "protocol": "knn", "settings": {"neighbours": 3}}
    heads = {f"{name}-knn": zoo.Head(backbone=name, **head) for name in bodies}
    records = zoo.Zoo(backbones=bodies, datasets={"colours": dataset}, heads=heads, attacks={})
    given = {} if "perturbation" in words else {"attack": "uap", "settings": ("steps=12", "step_size=0.3")}
    return resolve(Words(**{**given, "backbone": backbone, "task": "classification", **words}), records, installed())


def rows(record):
    return Run(Path(record["folder"])).rows()


def accuracy(record, verdict="robust"):
    return record["results"][verdict]["top1"]["value"]


def test_the_move_is_learned_from_the_fit_split_alone_once_and_before_the_first_row(data, runs, monkeypatch):
    read, learning = [], []
    learn = UAP.learn

    def watched(self, lessons, threat_model, streams):
        learning.append(lessons.data.root)
        assert not list(runs.glob("*/images.jsonl"))
        before = len(read)
        move = learn(self, lessons, threat_model, streams)
        assert {path.relative_to(data).parts[0] for path in read[before:]} == {"train"}
        return move

    from sslrob import images

    opened = images.open_rgb
    monkeypatch.setattr(UAP, "learn", watched)
    monkeypatch.setattr("sslrob.images.open_rgb", lambda path: (read.append(path), opened(path))[1])
    record = run(question(data), runs=runs, pictures=2)
    assert learning == [data / "train"]
    assert record["universal"]["file"] == FILE
    assert record["universal"]["forwards"] == record["universal"]["backwards"] == 6 * (32 + 4)
    assert record["results"]["cost"] == {"forwards": 0, "backwards": 0}
    assert record["provenance"]["fit"] != record["provenance"]["dataset"]
    move = load(Path(record["folder"], FILE)).move
    assert move.shape == (3, 8, 8)
    assert float(move.abs().max()) <= 16 / 255 + 1e-6


def test_a_move_learned_from_dead_gradients_is_flagged(data, runs, monkeypatch):
    """Also when the finished run is asked for again; losses above the clip are not dead."""
    clipped = run(question(data, settings=("steps=2", "clip=-1000")), runs=runs, pictures=0)
    assert clipped["universal"]["dead_gradients"] == 0
    assert "dead-gradients" not in {flag["name"] for flag in clipped["flags"]}
    monkeypatch.setattr("sslrob.builtin.knn.NearestNeighbours.loss", lambda self, outputs, *_: 0 * outputs.sum((1, 2)))
    for _ in range(2):
        record = run(question(data, settings=("steps=2",)), runs=runs, pictures=0)
        assert record["universal"]["dead_gradients"] == record["universal"]["backwards"] > 0
        assert "dead-gradients" in {flag["name"] for flag in record["flags"]}


@pytest.mark.parametrize("shards", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_batches_shards_and_parts_of_a_run_meet_the_same_move(data, runs, shards):
    spec = question(data)
    whole = run(spec, runs=runs / "whole", batch_size=15, pictures=0)
    some = run(spec, runs=runs / "parts", limit=4, batch_size=3, pictures=0)
    move = Path(some["folder"], FILE).read_bytes()
    more = run(spec, runs=runs / "parts", batch_size=4, shards=shards, pictures=2)
    assert Path(more["folder"], FILE).read_bytes() == Path(whole["folder"], FILE).read_bytes() == move
    assert more["universal"] == whole["universal"]
    assert [row["robust"]["fooled"] for row in rows(more)] == [row["robust"]["fooled"] for row in rows(whole)]
    assert [row["distance"] for row in rows(more)] == [row["distance"] for row in rows(whole)]
    again = run(spec, runs=runs / "parts", pictures=0)
    assert again["universal"] == whole["universal"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sslrob import runs, universal
from sslrob.execute import run
from sslrob.spec import Spec

owner, name = {"move": (universal, "save"), "rows": (runs.Run, "append")}[sys.argv[3]]
plain = getattr(owner, name)

def last(*args):
    plain(*args)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, last)
run(Spec.model_validate_json(Path(sys.argv[1]).read_text()), runs=Path(sys.argv[2]), batch_size=4, pictures=0)
"""


@pytest.mark.parametrize("after", ["move", pytest.param("rows", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_same_move(data, runs, tmp_path, after):
    spec = question(data)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "spec.json", runs, after], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = runs / spec.name
    move, before = (folder / FILE).stat().st_mtime_ns, Run(folder).rows()
    assert len(before) == {"move": 0, "rows": 4}[after]
    finished = run(spec, runs=runs, batch_size=4, pictures=0)
    assert (folder / FILE).stat().st_mtime_ns == move
    whole = run(spec, runs=runs / "whole", batch_size=4, pictures=0)
    assert rows(finished) == rows(whole)


LEARNING = {
    "uap": {"settings": ("steps=9", "step_size=0.3")},
    "uap-embedding": {"settings": ("steps=9",), "objective": "embedding:target"},
    "data-free": {"attack": "data-free", "objective": "activation", "settings": ("steps=9",)},
    "with-images": {"attack": "data-free", "objective": "activation", "settings": ("steps=9", "images=0.1")},
    "deepfool-uap": {"attack": "deepfool-uap", "settings": ("images=90", "steps=3")},
}


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, id=name, marks=[pytest.mark.slow] * (name not in ("uap", "with-images"))) for name, words in LEARNING.items()],
)
def test_learning_that_was_stopped_goes_on_to_the_same_byte(data, runs, monkeypatch, words):
    """Stopped in the first and in a later pass through the fit split, whose 36 images are two batches."""
    spec = question(data, **words)
    told = []
    whole = Path(run(spec, runs=runs / "whole", limit=1, pictures=0, lessons=lambda *now: told.append(now))["folder"])
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {length for _, length in told} == {told[-1][0]}
    assert not (whole / DRAFT).exists()
    monkeypatch.setattr("sslrob.fit_batches.OFTEN", 0.0)
    for stop in (1, 4):

        def stopping(done, length, at=told[stop]):
            if (done, length) == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(spec, runs=runs / "parts", limit=1, pictures=0, lessons=stopping)
    folder = runs / "parts" / spec.name
    assert (folder / DRAFT).exists()
    went_on = []
    run(spec, runs=runs / "parts", limit=1, pictures=0, lessons=lambda *now: went_on.append(now))
    assert went_on == told[4:]
    assert (folder / FILE).read_bytes() == (whole / FILE).read_bytes()
    assert not (folder / DRAFT).exists()


def test_a_draft_of_another_question_is_not_gone_on_from(data, runs, monkeypatch):
    spec = question(data)
    folder = Path(run(spec, runs=runs, limit=1, pictures=0)["folder"])
    learned, nothing = (folder / FILE).read_bytes(), Move(torch.zeros(3, 8, 8))
    known = told(folder / FILE)
    draft = {"done": 11, "place": 0, "stream": Streams(0, ["any"]).state, "cost": known["cost"], "run": spec.id, "fit": known["fit"]}
    for other in ({"run": "another", "fit": "other images"}, {}):
        save(folder / DRAFT, nothing, {**draft, **other})
        (folder / FILE).unlink()
        (folder / "images.jsonl").unlink()
        run(spec, runs=runs, limit=1, pictures=0)
        assert ((folder / FILE).read_bytes() == learned) == bool(other)


def test_a_run_does_not_go_on_without_its_move_or_with_another(data, runs):
    spec = question(data)
    folder = Path(run(spec, runs=runs, limit=3, pictures=0)["folder"])
    other = Path(run(question(data, seed=1), runs=runs, limit=3, pictures=0)["folder"])
    assert (folder / FILE).read_bytes() != (other / FILE).read_bytes()
    move = (folder / FILE).read_bytes()
    (folder / FILE).unlink()
    assert run(spec, runs=runs, limit=3, pictures=0)["status"] == "finished"  # nothing left to attack
    with pytest.raises(SslrobError, match="is gone, the move that the rows"):
        run(spec, runs=runs, limit=5, pictures=0)
    shutil.copy(other / FILE, folder / FILE)
    with pytest.raises(SslrobError, match="the move of another run"):
        run(spec, runs=runs, limit=5, pictures=0)
    (folder / FILE).write_bytes(move[:-3])
    with pytest.raises(SslrobError, match="not a whole safetensors file"):
        run(spec, runs=runs, limit=5, pictures=0)
    (folder / FILE).write_bytes(move)
    assert run(spec, runs=runs, limit=5, pictures=0)["results"]["images"] == 5


def test_a_move_of_another_fit_split_is_refused_before_the_first_row(data, runs):
    """A run that was killed when it had learned: it has no rows that would tell."""
    spec = question(data)
    folder = Path(run(spec, runs=runs, pictures=0)["folder"])
    kept = (folder / FILE).read_bytes()
    save(folder / FILE, load(folder / FILE), {**told(folder / FILE), "fit": "other images"})
    (folder / "images.jsonl").unlink()
    with pytest.raises(SslrobError, match="was learned from another fit split"):
        run(spec, runs=runs, pictures=0)
    (folder / FILE).write_bytes(kept)
    assert run(spec, runs=runs, pictures=0)["status"] == "finished"


def test_a_move_does_not_meet_the_images_it_was_learned_from(data, runs, first):
    """Not even as the evaluated split of another data set."""
    spec = question(data, perturbation=Path(first["folder"], FILE))
    turned = {"path": data / "train", "fit": zoo.FitSplit(path=data / "test")}
    with pytest.raises(SslrobError, match="learned from the images that are evaluated"):
        run(spec.model_copy(update={"dataset": spec.dataset.model_copy(update=turned)}), runs=runs)


def test_a_data_set_without_a_fit_split_is_refused(data, runs):
    with pytest.raises(SslrobError, match="no fit split"):
        run(question(data, fit=None), runs=runs, pictures=0)
    with pytest.raises(SslrobError, match="fit split is the split that is evaluated"):
        run(question(data, fit="test"), runs=runs, pictures=0)


def test_a_targeted_objective_takes_its_images_from_the_fit_split(data, runs):
    spec = question(data, attack="pgd", settings=("steps=3",), objective="embedding:target")
    one, many = (run(spec, runs=runs / f"{size}", batch_size=size, pictures=0) for size in (1, 6))
    assert "fit" in one["provenance"]
    assert [row["robust"]["fooled"] for row in rows(one)] == [row["robust"]["fooled"] for row in rows(many)]
    assert [row["distance"] for row in rows(one)] == pytest.approx([row["distance"] for row in rows(many)], abs=1e-4)


# used again


@pytest.fixture(scope="module")
def first(data):
    """The run of a universal attack on the backbone `small`."""
    return run(question(data, settings=("steps=40", "step_size=0.2")), runs=data / "runs", pictures=0)


def test_a_move_learned_on_one_backbone_fools_another(data, runs, first):
    path = Path(first["folder"], FILE)
    spec = question(data, backbone="other", perturbation=path)
    other = run(spec, runs=runs, pictures=0)
    assert accuracy(other, "clean") > 90
    assert accuracy(first) < 40
    assert accuracy(other) < 70
    noise = run(question(data, backbone="other", attack="noise", settings=("draws=1",)), runs=runs, pictures=0)
    assert accuracy(other) < accuracy(noise)
    assert "universal" not in other
    assert other["sentence"].endswith("uap (40 steps), learned on small-knn · linf:16/255")
    smaller = run(question(data, backbone="other", perturbation=path, epsilon="2/255"), runs=runs, pictures=0)
    assert smaller["results"]["distance"]["max"] <= 2 / 255 + 1e-6
    assert accuracy(smaller) >= accuracy(other)


def test_the_same_run_again_by_its_move_is_the_same_answer(data, runs, first):
    again = run(question(data, perturbation=Path(first["folder"], FILE)), runs=runs, pictures=0)
    assert rows(again) == rows(first)
    assert again["id"] != first["id"]


def test_the_bytes_of_the_move_are_in_the_id_and_where_they_lie_is_not(data, runs, first, tmp_path):
    path, copy = Path(first["folder"], FILE), tmp_path / "copy.safetensors"
    shutil.copy(path, copy)
    spec = question(data, perturbation=path)
    assert question(data, perturbation=copy).id == spec.id
    assert spec.perturbation.weights.sha256
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    spec = question(data, perturbation=copy)
    save(copy, Move(load(path).move.flip(2)), {key: value for key, value in told(path).items() if key != "format"})
    assert question(data, perturbation=copy).id != spec.id
    with pytest.raises(SslrobError, match="sha256"):  # it is no longer the move that was asked for
        run(spec, runs=runs, pictures=0)


def test_a_question_without_one_says_nothing_of_it(data):
    spec = question(data)
    assert "perturbation" not in spec.model_dump(mode="json")
    assert "perturbation" not in spec.model_dump_json()


@pytest.mark.parametrize(
    ("words", "says", "hint"),
    [
        ({"norm": "l2", "epsilon": "1"}, "learned in norm 'linf', not 'l2'", "leave --norm out"),
        ({"norm": "l2"}, "learned in norm 'linf', not 'l2'", "leave --norm out"),
        ({"norm": "l3"}, "no norm is named 'l3'", "'l2'"),
        ({"epsilon": "17/255"}, "within linf:16/255, so it cannot fill linf:17/255", "--epsilon 16/255 or less"),
        ({"attack": "uap"}, "--attack too", "leave --attack out"),
        ({"objective": "task"}, "--objective too", "leave --objective out"),
        ({"settings": ("steps=3",)}, "--set too", "leave --set out"),
        ({"restarts": 2}, "--restarts too", "leave --restarts out"),
    ],
)
def test_what_does_not_go_with_a_move(data, first, words, says, hint):
    with pytest.raises(SslrobError) as caught:
        question(data, perturbation=Path(first["folder"], FILE), **words)
    assert says in str(caught.value)
    assert hint in caught.value.hint


def test_what_a_move_is_called(data, first):
    folder = Path(first["folder"])
    runs = folder.parent
    for word in (str(folder), str(folder / FILE), folder.name, first["id"]):
        assert find(word, runs) == (folder / FILE).resolve()
    with pytest.raises(SslrobError, match="no run is named"):
        find("nonsense", runs)
    plain = run(question(data, attack="fgsm", settings=()), runs=runs, limit=2, pictures=0)
    with pytest.raises(SslrobError, match="there is no universal move at"):
        question(data, perturbation=find(plain["id"], runs))


def test_the_command_takes_a_move(tmp_path):
    attack = {"id": "uap", "use": "uap", "plugin": "sslrob 0", "objective": "task", "settings": {"steps": 5}, "restarts": 1}
    save(tmp_path / FILE, Move(torch.zeros(3, 64, 64)), {"threat_model": "linf:4/255", "attack": attack, "learned_on": "my-head"})
    words = ["eval", "--backbone", "mini-swav", "--task", "classification", "--perturbation", str(tmp_path / FILE), "--dry-run", "--json"]
    answer = CliRunner().invoke(cli.app, words)
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.output)
    assert found["spec"]["threat_model"] == "linf:4/255"
    assert "uap (5 steps), learned on my-head" in found["sentence"]


# what is refused


def test_restarts_and_objectives_that_mean_nothing(data):
    with pytest.raises(SslrobError, match="draws nothing at random"):
        question(data, restarts=2)
    with pytest.raises(SslrobError, match="attack 'data-free' is not defined for objective 'task'") as caught:
        question(data, attack="data-free", settings=())
    assert "activation" in caught.value.hint
    free = question(data, attack="data-free", objective="activation", settings=("mean=[0.3, 0.4]",))
    assert free.attack.settings["mean"] == [0.3, 0.4]
    assert free.attack.objective == "activation:lift"
    for attack in ("deepfool", "hop-skip-jump"):
        with pytest.raises(SslrobError, match=f"attack '{attack}' is not defined for objective 'embedding'"):
            question(data, attack=attack, objective="embedding", settings=())
    with pytest.raises(SslrobError, match="no word 'toknes'"):
        question(data, objective="embedding:toknes")
    for objective in ("embedding:map2", "activation:map0+map7"):  # before anything is read: also with --dry-run
        with pytest.raises(SslrobError, match=r"but the backbone has map0 to map1"):
            question(data, attack="pgd", objective=objective, settings=())
    assert question(data, attack="pgd", objective="embedding:map1", settings=("steps=2",)).attack.objective == "embedding:map1"
    assert question(data, objective="embedding:cosine").id == question(data, objective="embedding").id
