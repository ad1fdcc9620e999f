"""Attacks through surrogates: whom the attack sees, who judges, what is counted, and what becomes of the question's id."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sslrob import Attack, Backbone, Task, cli, hookimpl, zoo
from sslrob.builtin.apgd import APGD
from sslrob.builtin.fab import FAB, TargetedFAB
from sslrob.builtin.gradient import COMPACT_EVERY, FGSM, PGD
from sslrob.builtin.hop_skip_jump import HopSkipJump
from sslrob.builtin.minimal import FMN
from sslrob.builtin.noise import Noise
from sslrob.builtin.restarts import Restarts
from sslrob.builtin.spsa import SPSA
from sslrob.data import batches
from sslrob.errors import SslrobError
from sslrob.evaluate import Question, evaluate
from sslrob.objective import build
from sslrob.plugins import Plugins, installed
from sslrob.resolve import Words, resolve
from sslrob.spec import Spec
from sslrob.streams import Streams
from sslrob.summary import attack_success_rate
from sslrob.testing import LinearVictim, ToySegmenter, toys
from sslrob.threat_model import L2, Linf
from sslrob.transfer import through
from sslrob.zoo import Weights, Zoo

KINDS = ["classification", "segmentation", "detection"]


def other(share: float, seed: int = 1) -> LinearVictim:
    """A linear victim whose weights are the toy's, but for this share of noise."""
    victim = LinearVictim()
    with torch.no_grad():
        noise = torch.randn(victim.weight.shape, generator=torch.Generator().manual_seed(seed))
        victim.weight.mul_(1 - share).add_(share * noise)
    return victim.eval()


def rows(kind: str, attack: Attack, threat_model: Any, *surrogates: Any, **question: Any) -> list[dict[str, Any]]:
    toy = toys()[kind]
    asked = Question(toy.task, toy.victim, attack, threat_model, surrogates=surrogates, **question)
    return [row for part in evaluate(asked, batches(toy.dataset, 3)) for row in part.rows]


# ---- what it does


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", [FGSM(), Noise(draws=4)], ids=lambda attack: type(attack).__name__)
def test_through_the_victim_itself_is_the_white_box_attack(kind, attack):
    assert rows(kind, attack, Linf(6 / 255), toys()[kind].victim) == rows(kind, attack, Linf(6 / 255))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", [PGD(steps=8), Restarts(PGD(steps=3), 2), APGD(steps=8)], ids=str)
def test_attacks_that_stop_at_the_border_give_the_same_verdicts_and_go_on(kind, attack):
    """Beyond its border the victim's quality falls further, so that another victim is fooled sooner."""
    seen, stopped = rows(kind, attack, Linf(6 / 255), toys()[kind].victim), rows(kind, attack, Linf(6 / 255))
    assert [row["robust"]["fooled"] for row in seen] == [row["robust"]["fooled"] for row in stopped]
    assert all(one["robust"]["quality"] <= two["robust"]["quality"] for one, two in zip(seen, stopped, strict=True))
    if kind == "classification" and isinstance(attack, PGD):
        assert attack_success_rate(seen)[0] > 0
        assert sum(row["robust"]["quality"] for row in seen) < sum(row["robust"]["quality"] for row in stopped)
        assert min(row["forwards"] for row in seen) == max(row["forwards"] for row in seen)


def test_other_weights_give_a_weaker_attack():
    fooled = [attack_success_rate(rows("classification", PGD(), Linf(0.034), other(share)))[0] for share in (0.0, 0.5, 1.0)]
    assert fooled[0] == 6
    assert fooled[0] > fooled[1] > fooled[2]


@pytest.mark.parametrize("attack", [PGD(steps=5), SPSA(queries=30, pairs=5), HopSkipJump(queries=100)], ids=lambda a: type(a).__name__)
def test_the_attack_never_sees_the_victim(attack):
    class Watched(LinearVictim):
        looks = 0

        def forward(self, images):
            self.looks += 1
            return super().forward(images)

    toy, victim = toys()["classification"], Watched()
    question = Question(toy.task, victim, attack, L2(0.2), surrogates=(other(0.3),))
    (judged,) = evaluate(question, batches(toy.dataset, 6))
    assert victim.looks == 4  # clean, the same again for the watch, attacked, and rounded
    assert all(row["forwards"] > 4 for row in judged.rows)


def test_what_the_victim_gets_wrong_is_not_attacked():
    toy = toys()["classification"]
    backwards = LinearVictim()
    with torch.no_grad():
        backwards.weight.neg_()
    question = Question(toy.task, backwards.eval(), PGD(), Linf(0.1), surrogates=(toy.victim,))
    for part in evaluate(question, batches(toy.dataset, 6)):
        assert [row["forwards"] for row in part.rows] == [0] * 6


def test_several_surrogates_are_one_goal():
    """The loss is the mean, an image is fooled when all are, and a look passes through each."""
    toy = toys()["classification"]
    batch, victims = toy.batch(), (toy.victim, other(0.4), other(0.4, seed=2))
    goal = through(victims, "task:margin", batch, "white-box")
    parts = [build("task:margin", victim, batch, "white-box") for victim in victims]
    away = torch.tensor([1.0 - 2 * target for target in batch.targets])[:, None, None, None] * toy.victim.weight.detach().sign()
    images = (batch.images + 0.025 * away).clamp(0, 1).requires_grad_()
    look, looks = goal(images), [part(images) for part in parts]
    assert torch.allclose(look.loss, torch.stack([one.loss for one in looks]).mean(0))
    assert torch.allclose(look.quality, torch.stack([one.quality for one in looks]).mean(0))
    assert torch.equal(look.fooled, looks[0].fooled & looks[1].fooled & looks[2].fooled)
    assert 0 < look.fooled.sum() < torch.stack([one.fooled for one in looks]).any(0).sum()
    assert not look.done.any()
    torch.autograd.grad(look.loss.sum(), images)
    assert goal.cost.forwards.tolist() == goal.cost.backwards.tolist() == [3] * 6
    keep = torch.tensor([True, False, False, True, True, False])
    assert torch.equal(goal[keep](images[keep]).loss, look.loss[keep])
    assert goal.cost.forwards.tolist() == [6, 3, 3, 6, 6, 3]
    assert through(victims, "embedding", batch, "white-box").cost.forwards.tolist() == [3] * 6  # each looks at the clean images first


def test_they_grant_no_more_than_the_attack_may_see():
    toy = toys()["classification"]
    batch = toy.batch()
    verdict = through((toy.victim, other(0.4)), "task", batch, "decision")(batch.images)
    assert set(verdict.loss.tolist()) <= {0.0, 1.0}
    score = through((toy.victim, other(0.4)), "task", batch, "score")(batch.images.clone().requires_grad_())
    assert not score.loss.requires_grad


def test_margins_losses_and_targets_are_shared():
    toy = toys()["classification"]
    batch = toy.batch()
    victims = (toy.victim, other(0.4))
    goal = through(victims, "task", batch, "white-box")
    margins, _ = goal.margins(batch.images)
    own = [build("task", victim, batch, "white-box").margins(batch.images)[0] for victim in victims]
    assert torch.allclose(margins, (own[0] + own[1]) / 2)
    assert [len(one.parts) for one in goal.strongest()] == [2] * len(build("task", toy.victim, batch, "white-box").strongest())
    assert torch.equal(
        goal.raising("logistic")(batch.images).loss, through(victims, "task:logistic", batch, "white-box")(batch.images).loss
    )
    aims = [part.aims.tolist() for part in goal.towards(1).parts]
    assert aims[0] == aims[1] == [1 - target for target in batch.targets]


def test_several_fool_a_third_one_more_surely_than_each_alone():
    threat_model = Linf(0.035)
    alone = [rows("classification", PGD(), threat_model, other(0.5, seed)) for seed in (1, 2, 3)]
    together = rows("classification", PGD(), threat_model, *(other(0.5, seed) for seed in (1, 2, 3)))
    quality = [sum(row["robust"]["quality"] for row in found) for found in alone]
    assert sum(row["robust"]["quality"] for row in together) < min(quality)


def test_pgd_looks_no_further_only_where_the_surrogate_judges():
    toy = toys()["classification"]
    batch = toy.batch()
    costs = []
    for goal in (build("task", toy.victim, batch, "white-box"), through((toy.victim,), "task", batch, "white-box")):
        PGD(steps=40).perturb(goal, batch.images, Linf(0.2), streams=Streams(0, batch.ids))
        costs.append(int(goal.cost.forwards.max()))
    assert costs[0] <= 2 * COMPACT_EVERY + 2
    assert costs[1] == 41


@pytest.mark.parametrize("attack", [FMN(steps=10), FAB(steps=10), TargetedFAB(steps=10)], ids=lambda a: type(a).__name__)
def test_the_smallest_move_that_fools_a_surrogate_is_not_the_answer(attack):
    """Within the threat model the search came by images that the surrogate is surer to get wrong."""
    surrogate, threat_model = other(0.3), L2(0.5)
    seen, batch = through((surrogate,), "task", toys()["classification"].batch(), "white-box"), toys()["classification"].batch()
    found = attack.perturb(seen, batch.images, threat_model, streams=Streams(0, batch.ids))
    direct = build("task", surrogate, batch, "white-box")
    smallest = attack.perturb(direct, batch.images, threat_model, streams=Streams(0, batch.ids))
    assert (seen(found).quality <= seen(smallest).quality).all()
    assert seen(found).quality.mean() < 2 * seen(smallest).quality.mean() < 0


def test_embeddings_of_surrogates():
    seen = rows("segmentation", PGD(steps=5), Linf(8 / 255), ToySegmenter().eval(), objective="embedding")
    assert seen == rows("segmentation", PGD(steps=5), Linf(8 / 255), objective="embedding")


# ---- what the words mean


class Net(Backbone):
    def __init__(self) -> None:
        super().__init__()


class Labels(Task):
    headline = "top1"
    heads = ("linear", "knn")

    @staticmethod
    def losses(kind: str) -> tuple[str, ...]:
        return {"linear": ("ce", "margin"), "knn": ("margin",)}[kind]


class Fitted(PGD):
    def fit(self, batches: Any, threat_model: Any, *, streams: Any) -> Attack:
        return self


class Plugin:
    @hookimpl
    def register_backbones(self, register):
        register("net", Net)

    @hookimpl
    def register_tasks(self, register):
        register("labels", Labels)

    @hookimpl
    def register_attacks(self, register):
        register("pgd", PGD)
        register("fitted", Fitted)


def sums(letter: str) -> Weights:
    return Weights(file=Path("w.safetensors"), sha256=letter * 64)


def head(backbone: str, dataset: str = "items", **more: Any) -> zoo.Head:
    return zoo.Head(**{"backbone": backbone, "dataset": dataset, "kind": "linear", "protocol": "linear", "weights": sums("d"), **more})


def dataset(**more: Any) -> zoo.Dataset:
    return zoo.Dataset(task="labels", format="f", path=Path("data"), threat_model="linf:4/255", license="MIT", **more)


ZOO = Zoo(
    backbones={
        name: zoo.Backbone(use="net", license="MIT", family=name.rstrip("12"), weights=sums(letter))
        for name, letter in {"dino": "a", "swav": "b", "moco1": "c", "moco2": "e"}.items()
    },
    datasets={"items": dataset(default=True), "letters": dataset()},
    heads={
        "dino-linear": head("dino"),
        "dino-letters": head("dino", "letters"),
        "swav-linear": head("swav"),
        "swav-knn": head("swav", kind="knn", protocol="knn", weights=None),
        "moco1-linear": head("moco1"),
        "moco2-linear": head("moco2"),
    },
)


def asked(*surrogates: str, **words: Any) -> Spec:
    plugins = Plugins()
    plugins.add(Plugin(), "sslrob-toy 1.0")
    return resolve(Words(**{"backbone": "dino", "task": "labels", "surrogates": surrogates, **words}), words.pop("zoo", ZOO), plugins)


def refused(*surrogates: str, **words: Any) -> SslrobError:
    with pytest.raises(SslrobError) as caught:
        asked(*surrogates, **words)
    return caught.value


def test_a_question_without_surrogates_is_what_it_was():
    spec = asked()
    assert "surrogates" not in spec.model_dump(mode="json")
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_surrogates_are_chosen_as_the_victim_is():
    (one,) = asked("swav").surrogates
    assert (one.backbone.id, one.head.id) == ("swav", "swav-linear")
    (one,) = asked("swav-knn").surrogates
    assert (one.backbone.id, one.head.id) == ("swav", "swav-knn")
    assert asked("moco1").sentence() == "dino · items (test) · linear · pgd (20 steps) through moco1 · linf:4/255"
    assert asked("swav", "moco2").sentence().endswith("pgd (20 steps) through moco2, swav-linear · linf:4/255")


def test_surrogates_are_part_of_the_id_and_their_order_is_not():
    ids = {asked(*names).id for names in ((), ("swav",), ("swav-knn",), ("moco1",), ("dino",), ("swav", "moco1"))}
    assert len(ids) == 6
    assert asked("swav", "moco1") == asked("moco1", "swav")
    spec = asked("swav")
    assert Spec.model_validate(json.loads(spec.model_dump_json())).id == spec.id
    for kind, name in (("backbones", "swav"), ("heads", "swav-linear")):
        records: dict[str, Any] = dict(getattr(ZOO, kind))
        elsewhere = {
            **records,
            name: records[name].model_copy(update={"weights": Weights(file=Path("x"), sha256=records[name].weights.sha256)}),
        }
        changed = {**records, name: records[name].model_copy(update={"weights": sums("f")})}
        assert resolved(replace(ZOO, **{kind: elsewhere})).id == spec.id
        assert resolved(replace(ZOO, **{kind: changed})).id != spec.id


def resolved(zoo: Zoo) -> Spec:
    plugins = Plugins()
    plugins.add(Plugin(), "sslrob-toy 1.0")
    return resolve(Words(backbone="dino", task="labels", surrogates=["swav"]), zoo, plugins)


@pytest.mark.parametrize(
    ("surrogates", "words", "message", "hint"),
    [
        (["dino-letters"], {}, "surrogate 'dino-letters' is a head on dataset 'letters', not 'items'", "add --surrogate dino-linear"),
        (["swav"], {"dataset": "letters"}, "no head of backbone 'swav' on dataset 'letters' is in the zoo", "dino"),
        (["swaw"], {}, "no surrogate is named 'swaw'", "did you mean 'swav'"),
        (["moco"], {}, "2 members of family 'moco' have such a head on 'items', and none is the default", "add --surrogate moco1 or moco2"),
        (["swav", "swav-linear"], {}, "surrogate 'swav-linear' is meant twice", "leave out --surrogate swav-linear"),
        (["swav-knn"], {"objective": "task:ce"}, "no loss of head 'swav-knn' is named 'ce'", "its losses are margin"),
        (["swav"], {"attack": "fitted"}, "attack 'fitted' learns on the backbone that it is made for", "--perturbation RUN"),
    ],
)
def test_surrogates_that_are_refused(surrogates, words, message, hint):
    error = refused(*surrogates, **words)
    assert message in str(error)
    assert hint in error.hint


def test_the_loss_is_the_surrogates():
    """The victim need not have it: nothing is raised on the victim."""
    assert asked("swav", head="dino-linear", objective="task:ce").attack.objective == "task:ce"
    assert asked("dino", backbone="swav", head="swav-knn", objective="task:ce").surrogates[0].head.id == "dino-linear"


# ---- from the command line


@pytest.fixture
def shades(tmp_path, monkeypatch):
    """Images that the mean colour tells apart, and three heads that do so, one of them by red alone, one with its labels upside down."""
    import numpy as np
    from PIL import Image
    from safetensors.torch import save_file

    class Toy:
        @hookimpl
        def register_backbones(self, register):
            register("toy", "sslrob.testing.toy_victims:ToyBackbone")

    for name, light in (("dark", 110), ("light", 146)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((8, 8, 3), light + i, dtype=np.uint8)).save(tmp_path / "data" / name / f"{i}.png")
    for name, weight in (("all", [1.0, 1.0, 1.0]), ("red", [1.0, 0.0, 0.0])):
        save_file(
            {"head.weight": torch.tensor([[-w for w in weight], weight]), "head.bias": torch.zeros(2)}, tmp_path / f"{name}.safetensors"
        )
    (tmp_path / "zoo.yaml").write_text(
        """schema: 1
backbones:
  toy-1: {use: toy, family: toys, license: MIT, weights: null}
  toy-2: {use: toy, license: MIT, seed: 3}
datasets:
  shades: {task: classification, format: imagefolder, path: data, images: 8, classes: [dark, light], threat_model: "linf:24/255", default: true, license: MIT}
heads:
  toy-linear: {backbone: toy-1, dataset: shades, kind: linear, protocol: linear, weights: {file: all.safetensors}}
  toy-red: {backbone: toy-2, dataset: shades, kind: linear, protocol: linear, weights: {file: red.safetensors}}
"""
    )
    for name, value in (("SSLROB_PLUGINS", ""), ("SSLROB_ZOO", str(tmp_path / "zoo.yaml")), ("XDG_CONFIG_HOME", str(tmp_path / "config"))):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    installed.cache_clear()
    installed().add(Toy(), "sslrob-toy 1.0")
    yield
    installed.cache_clear()


def told(capsys, *words: str) -> str:
    capsys.readouterr()
    code = cli.run(["eval", "--backbone", "toys", "--task", "classification", "--device", "cpu", *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def test_a_run_through_a_surrogate(capsys, shades):
    planned = told(capsys, "--surrogate", "toy-2", "--dry-run")
    sentence = "toys → toy-1 · shades (test, 8 images) · linear · pgd (20 steps) through toy-2 · linf:24/255"
    assert planned.startswith(sentence)
    direct = json.loads(told(capsys, "--json"))
    record = json.loads(told(capsys, "--surrogate", "toy-2", "--json"))
    assert record["sentence"] == sentence
    assert record["id"] != direct["id"]
    assert f"it would be in {record['folder']}" in planned
    assert record["spec"]["surrogates"][0]["head"]["weights"]["sha256"] is not None
    assert "surrogates" not in direct["spec"]
    assert (direct["results"]["attack_success_rate"]["value"], record["results"]["attack_success_rate"]["value"]) == (100, 0)
    cost = record["results"]["cost"]
    assert (cost["forwards"], cost["backwards"]) == (21, 20)
    report = told(capsys, "--surrogate", "toy-2")
    assert "21.0 forwards and 20.0 backwards an image attacked through the surrogate" in report
    assert re.search(r"surrogate +toy-red, linear \(weights [0-9a-f]{12}\)", report)
    assert "The attack never saw the victim" in report
    assert "never saw" not in told(capsys, "--surrogate", "toy-2", "--surrogate", "toy-1")
