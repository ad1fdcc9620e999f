"""The nearest-neighbour head: its votes against brute force, its attacks against known distances, its memory on its way through a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslrob import assemble, zoo, zoo_files
from sslrob.backbone import Backbone, Features
from sslrob.builtin.classification import Classification
from sslrob.builtin.gradient import PGD
from sslrob.builtin.knn import NearestNeighbours, Neighbours
from sslrob.builtin.restarts import Restarts
from sslrob.data import Batch
from sslrob.errors import SslrobError
from sslrob.execute import run
from sslrob.objective import build
from sslrob.plugins import installed
from sslrob.resolve import Words, resolve
from sslrob.streams import Streams
from sslrob.testing import ToyBackbone, check_task, check_victim
from sslrob.testing.unchanged import module_unchanged
from sslrob.threat_model import L2
from sslrob.verify import Measured, verify

SETTINGS = [
    Neighbours(),
    Neighbours(neighbours=1),
    Neighbours(neighbours=5, temperature=None),
    Neighbours(neighbours=75, temperature=None, distance="l2"),
    Neighbours(neighbours=7, temperature=0.3, distance="l2"),
]
CLASSES = 4


def batch(embeddings, labels):
    """Images of one pixel, each of which is its embedding."""
    images = torch.as_tensor(embeddings, dtype=torch.float32).view(len(labels), -1, 1, 1)
    return Batch(tuple(f"{i}" for i in range(len(labels))), images, tuple(int(label) for label in labels))


def points(n, seed, classes=CLASSES):
    """Pixels in [0, 1], in clouds of different sizes, one a class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    centres = np.random.default_rng(99).uniform(0.3, 0.7, (classes, 3))
    return (centres[labels] + rng.normal(0, 0.1, (n, 3))).clip(0, 1).astype(np.float32), labels


def victim(settings, known, labels, classes=CLASSES, backbone=None):
    built = NearestNeighbours(backbone or ToyBackbone(), classes, settings).eval()
    built.remember([batch(known[i : i + 16], labels[i : i + 16]) for i in range(0, len(labels), 16)])
    return built


def brute_force(settings, known, labels, asked):
    """Shares of the votes, one image and one neighbour at a time, in float64; the toy backbone subtracts 0.5."""
    known, asked = known.astype(np.float64) - 0.5, asked.astype(np.float64) - 0.5
    spread = ((known - known.mean(0)) ** 2).sum(1).mean()
    shares = []
    for x in asked:
        if settings.distance == "cosine":
            near = np.array([x @ m / np.linalg.norm(x) / np.linalg.norm(m) for m in known])
        else:
            near = np.array([-((x - m) ** 2).sum() / 2 / spread for m in known])
        votes = np.zeros(CLASSES)
        for j in np.argsort(-near)[: settings.neighbours]:
            votes[labels[j]] += 1 if settings.temperature is None else np.exp(near[j] / settings.temperature)
        shares.append(votes / votes.sum())
    return np.array(shares)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_votes_are_those_of_brute_force(settings):
    known, labels = points(120, 0)
    asked, answers = points(60, 1)
    judge = victim(settings, known, labels)
    outputs = judge(batch(asked, answers).images)
    wanted = brute_force(settings, known, labels, asked)
    assert np.allclose(judge.votes(outputs).detach(), wanted, atol=2e-4)
    true = wanted[range(60), answers]
    wrong = np.where(np.eye(CLASSES, dtype=bool)[answers], -1, wanted).max(1)
    fooled = judge.fooled(outputs, tuple(answers.tolist())).numpy()
    clear = abs(true - wrong) > 1e-4
    assert (fooled == (true <= wrong))[clear].all()
    assert clear.sum() > 50
    assert 0 < fooled.sum() < 50, "this memory was to be neither right nor wrong about everything"
    rows = [Classification().measure(p, int(t)) for p, t in zip(judge.predict(outputs.detach()), answers, strict=True)]
    assert [row["rank"] > 0 for row in rows] == fooled.tolist()


def test_ties_are_lost_and_the_order_of_the_memory_is_all_one():
    known = np.array([[0.7, 0.5, 0.5], [0.7, 0.5, 0.5], [0.5, 0.7, 0.5]], dtype=np.float32)
    asked = batch([[0.7, 0.5, 0.5]], [0])
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2]):
        judge = victim(Neighbours(1, None), known[order], np.array([0, 1, 2])[order], 3)
        outputs = judge(asked.images)
        assert judge.votes(outputs).tolist() == [[0.5, 0.5, 0.0]]
        assert judge.fooled(outputs, (0,)).tolist() == [True]


def test_more_neighbours_than_there_are_and_classes_without_any():
    judge = victim(Neighbours(50, None), *points(9, 3, classes=2), classes=CLASSES)
    asked = batch(*points(5, 4, classes=2))
    outputs = judge(asked.images)
    assert judge.votes(outputs)[:, 2:].abs().max() == 0
    assert torch.allclose(judge.votes(outputs).sum(1), torch.ones(5))
    for name in judge.losses:
        assert judge.loss(outputs, (3, 2, 1, 0, 0), name, 0.5).isfinite().all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_victim_and_task_keep_their_contracts(settings):
    judge = victim(settings, *points(120, 0))
    asked = batch(*points(8, 5))
    check_victim(judge, asked.images, asked.targets)


def test_another_memory_replaces_the_first_and_the_backbone_stays_as_it_was():
    body = ToyBackbone().train()
    first, second = points(50, 0), points(30, 1)
    judge = victim(Neighbours(), *first, backbone=body)
    body.train()
    with module_unchanged(body, "remember"):
        judge.remember([batch(*second)])
    assert judge.remembered == 30
    asked = batch(*points(8, 5)).images
    assert torch.allclose(judge(asked), victim(Neighbours(), *second)(asked), atol=1e-6)
    with pytest.raises(ValueError, match="remember"):
        NearestNeighbours(ToyBackbone(), 3)(asked)


# attacks where the truth is known: one neighbour, two dimensions


class Plane(Backbone):
    """The first two colours of an image of one pixel."""

    def __init__(self):
        super().__init__()
        self.width, self.channels, self.strides = 2, (3,), (1,)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, images):
        return Features(self.scale * images[:, :2, 0, 0], (images,))


def nearest_boundary(x, known, labels, label):
    """Distance from `x` to the nearest point that is as near to some embedding of another class as to any of `label`'s (float64).

    The cell of each wrong embedding is cut out by its bisectors with the true ones: its nearest point lies on one of them, or on two.
    """
    best = np.inf
    own = known[labels == label]
    for q in known[labels != label]:
        normals, middles = q - own, (q + own) / 2
        offsets = (normals * middles).sum(1)  # z is in the cell where normals @ z >= offsets
        candidates = [x + max(0.0, b - a @ x) / (a @ a) * a for a, b in zip(normals, offsets, strict=True)]
        for i in range(len(own)):
            for j in range(i):
                pair = normals[[i, j]]
                if abs(np.linalg.det(pair)) > 1e-9:
                    candidates.append(np.linalg.solve(pair, offsets[[i, j]]))
        best = min([best, *(np.linalg.norm(z - x) for z in candidates if (normals @ z >= offsets - 1e-9).all())])
    return best


def test_attacks_win_beyond_the_nearest_boundary_and_never_within():
    """One neighbour in the plane: the distance to the nearest boundary is known exactly.

    Classes alternate, so that gradients lead to borders other than the nearest: one start misses some of these, twenty find all.
    """
    rng = np.random.default_rng(0)
    known = rng.uniform(0.25, 0.75, (8, 2))
    labels = np.arange(8) % 2
    asked = np.concatenate([rng.uniform(0.3, 0.7, (8, 2)), np.full((8, 1), 0.5)], 1)
    judge = NearestNeighbours(Plane(), 2, Neighbours(1, None, "l2")).eval()
    judge.remember([batch(np.concatenate([known, np.full((8, 1), 0.5)], 1), labels)])
    with torch.no_grad():
        answers = [int(p.argmax()) for p in judge.predict(judge(batch(asked, [0] * 8).images))]
    for i, answer in enumerate(answers):
        one = Batch((f"{i}",), batch(asked[i : i + 1], [0]).images, (answer,))
        radius = nearest_boundary(asked[i, :2], known, labels, answer)
        for factor, wins, losses in ((0.95, False, judge.losses), (1.25, True, judge.losses[:1])):
            for loss in losses:
                attack = Restarts(PGD(), 20 if wins else 1)
                objective = build(f"task:{loss}", judge, one, attack.access)
                found = attack.perturb(objective, one.images, L2(factor * radius), streams=Streams(0, one.ids))
                assert bool(judge.fooled(judge(found), one.targets)) == wins, (loss, i, factor)


# on its way through a run


@pytest.fixture
def data(tmp_path):
    """Three colours, a split to look at and one to remember; a zoo with k-NN heads on a backbone that is not trained."""
    rng = np.random.default_rng(0)
    for split, n in (("test", 4), ("train", 6)):
        for c, name in enumerate(("blue", "green", "red")):
            for i in range(n):
                pixels = rng.integers(100, 150, (8, 8, 3))
                pixels[:, :, 2 - c] += rng.integers(10, 40)
                file = tmp_path / split / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path


def collection(folder, **head):
    dataset = zoo.Dataset(
        task="classification",
        format="imagefolder",
        path=folder / "test",
        threat_model="linf:8/255",
        default=True,
        license="none",
        fit=zoo.FitSplit(path=folder / "train"),
    )
    body = zoo.Backbone(use="mini-resnet", settings={"widths": [4, 8], "blocks": [1, 1]}, license="none")
    known = {"backbone": "small", "dataset": "colours", "kind": "knn", "protocol": "knn", "settings": {"neighbours": 3}}
    return zoo.Zoo(backbones={"small": body}, datasets={"colours": dataset}, heads={"small-knn": zoo.Head(**{**known, **head})}, attacks={})


def asked(records, **words):
    words = {"attack": "pgd", "backbone": "small", "task": "classification", "settings": ("steps=2",), **words}
    return resolve(Words(**words), records, installed())


def test_a_run_remembers_the_fit_split_and_says_which(data):
    spec = asked(collection(data))
    record = run(spec, runs=data / "runs", limit=6, batch_size=4, pictures=1)
    assert record["results"]["images"] == 6
    assert not record["flags"]
    assert record["provenance"]["fit"] != record["provenance"]["dataset"]
    rows = Path(record["folder"], "images.jsonl")
    few = [json.loads(line) for line in rows.read_text().splitlines()]
    more = run(spec, runs=data / "runs", batch_size=1, pictures=0)
    assert more["results"]["images"] == 12
    whole = run(spec, runs=data / "other", batch_size=12, pictures=0)
    other = {row["id"]: row for row in map(json.loads, Path(whole["folder"], "images.jsonl").read_text().splitlines())}
    for row in few:
        assert row["robust"]["fooled"] == other[row["id"]]["robust"]["fooled"]
        assert row["clean"]["quality"] == pytest.approx(other[row["id"]]["clean"]["quality"], abs=1e-4)
    (data / "train" / "red" / "0.png").unlink()
    with pytest.raises(SslrobError, match="fit split is not what it was"):
        run(spec, runs=data / "runs", pictures=0)


def test_what_changes_the_number_changes_the_id(data):
    ids = {
        asked(collection(data, settings=settings)).id
        for settings in ({"neighbours": 3}, {"neighbours": 4}, {"neighbours": 3, "temperature": None}, {"neighbours": 3, "distance": "l2"})
    }
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"protocol": "linear"}, "recorded as linear"),
        ({"kind": "linear", "settings": {}}, "recorded as knn"),
        ({"settings": {"neighbors": 3}}, "no setting 'neighbors'"),
        ({"settings": {"neighbours": 0}}, "neighbours"),
        ({"weights": {"file": __file__}}, "has weights"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_wrong_records(data, head, message):
    found = verify("head", "small-knn", collection(data, **head), installed())
    assert message in found.problem
    assert found.hint


def test_a_verified_head_measures_its_metrics(data, monkeypatch):
    monkeypatch.setenv("SSLROB_CACHE", str(data / "cache"))
    found = verify("head", "small-knn", collection(data, clean={"top1": 0.0}), installed(), measured=Measured())
    assert "top1" in found.found
    assert "clean top1 is" in found.problem


def test_labels_of_the_memory_are_those_of_the_split_that_is_looked_at(data):
    record = collection(data).datasets["colours"]
    fit = assemble.fit_split(record, Classification(), ("red", "green", "blue"))
    assert fit[0].id.startswith("blue")
    assert fit[0].target == 2
    body = assemble.backbone(collection(data).backbones["small"], name="small")
    with pytest.raises(ValueError, match="data set"):
        assemble.victim(collection(data).heads["small-knn"], body, Classification(), classes=fit.classes, name="small-knn")


def test_a_loss_that_the_head_lacks_is_refused_before_anything_is_built(data):
    with pytest.raises(SslrobError, match="no loss of head 'small-knn' is named 'margn'") as caught:
        asked(collection(data), objective="task:margn")
    assert "'task:margin'" in caught.value.hint
    with pytest.raises(SslrobError, match="no loss of head 'small-knn' is named 'js'") as caught:
        asked(collection(data), attack="sea", settings=("losses=[margin, js]",))
    assert "--set losses=[]" in caught.value.note
    assert asked(collection(data), attack="sea", settings=("losses=[margin]",)).attack.settings["losses"] == ["margin"]


@pytest.mark.parametrize("name", [name for name in zoo_files.load().attacks if name.startswith("knn-")])
def test_presets_are_for_losses_that_there_are(name):
    assert zoo_files.load().attacks[name].objective.removeprefix("task:") in NearestNeighbours.losses


def test_rows_of_a_nearest_neighbour_task(data):
    task, record = Classification(), collection(data).datasets["colours"]
    found = assemble.dataset(record, task)
    judge = task.victim(ToyBackbone(), kind="knn", classes=found.classes, settings={"neighbours": 3})
    judge.remember([batch([[0.6, 0.5, 0.5], [0.5, 0.6, 0.5], [0.5, 0.5, 0.6]], [2, 1, 0])])
    check_task(task, found, judge, classes=found.classes)
