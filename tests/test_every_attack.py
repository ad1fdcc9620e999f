"""Every registered attack through whole runs: neither batches nor shards nor a stop half-way change a row, and memory stays flat."""

import gc
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
import yaml

from sslrob import assemble, execute, shards
from sslrob.backbone import Backbone, Features
from sslrob.builtin.classification import Classification, LinearClassifier
from sslrob.data import Sample
from sslrob.errors import SslrobError
from sslrob.plugins import installed
from sslrob.runs import Run
from sslrob.spec import AttackSpec, DatasetSpec, Spec, TaskSpec
from sslrob.testing import ToyDataset, ToyTask, toys
from sslrob.zoo import FitSplit

QUICK = yaml.safe_load((Path(__file__).parent / "quick.yaml").read_text())
RADII = {"linf": 0.02, "l2": 0.3, "l1": 2.0}  # some images of the toys withstand them
FIT = Path("fit")


class Pixels(Backbone):
    """The image less grey, as it is and as a vector."""

    width, channels, strides = 192, (3,), (1,)

    def forward(self, images):
        return Features((images - 0.5).flatten(1), (images - 0.5,))


class Classes(Classification):
    """Four classes of 8 × 8 images told apart by a linear layer, which is wrong about two of them from the start."""

    def dataset(self, root=Path(), **_):
        seed, n = (1, 12) if root == FIT else (0, 17)
        images = (0.5 + 0.1 * torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
        labels = self.victim()(images).argmax(1)
        labels[:2] = (labels[:2] + 1) % 4
        return ToyDataset(images, labels.tolist(), f"classes {seed}")

    def victim(self, *_, **__):
        victim = LinearClassifier(Pixels(), 4).requires_grad_(False).eval()
        victim.head.weight.copy_(torch.randn(4, 192, generator=torch.Generator().manual_seed(2)))
        victim.head.bias.zero_()
        return victim


class Many(ToyTask):
    """The toy's images, and mirrored ones."""

    def dataset(self, root=Path(), **_):
        images = toys()[self.kind].dataset.images
        images = torch.cat([images.flip(2)] if root == FIT else [images, images.flip(3), images.transpose(2, 3)])
        victim = self.victim()
        return ToyDataset(images, victim.predict(victim(images)), f"many {root}")


TASKS = {"classification": Classes, "segmentation": lambda: Many("segmentation"), "detection": lambda: Many("detection")}


class Here:
    """A pool of workers that is this very process: starting others for every attack would take minutes."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, part):
        future = Future()
        future.set_result(work(part))
        return future


def question(name, task, **settings):
    """What `sslrob eval` would ask of an attack, at settings for tests."""
    attack = installed().get("attack", name)
    norm = min(attack.norms or RADII, key=list(RADII).index)
    kind = "task" if attack.objectives is None or "task" in attack.objectives else min(attack.objectives)
    found = AttackSpec(id=name, use=name, plugin="none", objective=kind, settings={**QUICK.get(name, {}), **settings}, restarts=1)
    data = {"id": "toy", "format": "toy", "path": Path(), "split": "test", "images": None, "classes": (), "settings": {}}
    return Spec(
        task=TaskSpec(name=task, plugin="none", version=1),
        dataset=DatasetSpec(**data, fit=FitSplit(path=FIT)),
        attack=found,
        threat_model=f"{norm}:{RADII[norm] / (5 if task == 'classification' else 1)}" if attack.bounded else "linf:1",
    )


@pytest.fixture
def answer(monkeypatch, tmp_path):
    """Runs a question on a toy task; gives its rows, and the bytes of the move that it learned."""
    monkeypatch.chdir(tmp_path)  # outside a git checkout, which would be looked at each time
    monkeypatch.setattr(assemble, "task", lambda name: TASKS[name]())
    monkeypatch.setattr(execute, "load_victim", lambda spec, task, *_: task.victim())
    monkeypatch.setattr(shards, "ProcessPoolExecutor", Here)
    threads = torch.get_num_threads()

    def answered(spec, runs, **how):
        record = execute.run(spec, runs=tmp_path / runs, device="cpu", pictures=0, **how)
        folder = Path(record["folder"])
        moves = [path.read_bytes() for path in folder.glob("*.safetensors")]
        return Run(folder).rows(), moves

    yield answered
    torch.set_num_threads(threads)


def stopping(after):
    """Ctrl-C as soon as so many images are done."""

    def progress(done, total):
        if after <= done < total:
            raise KeyboardInterrupt

    return progress


def on_every_task():
    """Each attack on the tasks that it is defined for; the first of them is the quick one."""
    for component in installed().of("attack"):
        tasks = [task for task in TASKS if task in (component.load().tasks or TASKS)]
        for task in tasks:
            yield pytest.param(component.name, task, id=f"{component.name}-{task}", marks=[pytest.mark.slow] * (task != tasks[0]))


@pytest.mark.parametrize(("name", "task"), [*on_every_task()])
def test_neither_batches_nor_shards_nor_a_stop_change_a_row(name, task, answer):
    spec = question(name, task)
    whole, learned = answer(spec, "whole", batch_size=7)
    sharded, moves = answer(spec, "sharded", batch_size=4, shards=3)
    with pytest.raises(KeyboardInterrupt):
        answer(spec, "stopped", batch_size=3, progress=stopping(len(whole) // 2))
    resumed, again = answer(spec, "stopped", batch_size=5)
    assert learned == moves == again
    for rows in (sharded, resumed):
        assert [verdicts(row) for row in rows] == [verdicts(row) for row in whole]
        assert torch.allclose(amounts(rows), amounts(whole), rtol=0, atol=2e-3)


def verdicts(row):
    """All of a row that is no rounded number."""
    return {**row, "distance": 0, **{verdict: {**row[verdict], "quality": 0} for verdict in ("clean", "robust", "rounded")}}


def amounts(rows):
    return torch.tensor([[row["distance"], *(row[verdict]["quality"] for verdict in ("clean", "robust", "rounded"))] for row in rows])


@pytest.mark.parametrize("threat_model", ["l2:500", "l1:500"])
def test_a_run_without_bounds_does_not_begin(threat_model, answer, tmp_path):
    spec = question("pgd", "classification").model_copy(update={"threat_model": threat_model})
    with pytest.raises(SslrobError, match="epsilon 500 bounds nothing"):
        answer(spec, "unbounded")
    assert not (tmp_path / "unbounded").exists()


class Drawn(ToyDataset):
    """Images that are made when they are read, so that none has to stay; it notes what memory all tensors take when the last one is read."""

    def __init__(self, n):
        self.ids, self.fingerprint, self.held = tuple(f"{i:04}" for i in range(n)), f"drawn {n}", 0

    def __getitem__(self, index):
        if index == len(self) - 1:
            held = {found.untyped_storage().data_ptr(): found.untyped_storage().nbytes() for found in tensors()}
            self.held = sum(held.values())
        image = (0.5 + 0.1 * torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))).clamp(0, 1)
        return Sample(self.ids[index], image, index % 4)


def tensors():
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]  # isinstance asks objects that warn
    return [one for one in found if one.layout == torch.strided]  # sparse ones, of other tests, have no storage to tell


@pytest.mark.parametrize("name", ["pgd", "square"])
def test_memory_does_not_grow_with_the_number_of_images(name, answer, monkeypatch):
    held = []
    for n in (16, 128):
        data = Drawn(n)
        monkeypatch.setattr(Classes, "dataset", lambda self, *_, data=data, **__: data)
        answer(question(name, "classification"), f"of-{n}", batch_size=4)
        held.append(data.held)
    assert 0 < held[1] <= held[0] + 4 * 3 * 8 * 8 * 4  # a batch more or less
