from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, JsonValue

from sslrob import Attack, Backbone, Task, hookimpl, zoo
from sslrob.errors import SslrobError
from sslrob.hookspecs import Register
from sslrob.layout import Layout
from sslrob.plugins import Plugins
from sslrob.resolve import Words, resolve
from sslrob.settings import complete
from sslrob.spec import Spec
from sslrob.zoo import Weights, Zoo

SUM = "ab" * 32


class Net(Backbone):
    def __init__(self, depth: int = 2, stem: str = "conv") -> None:
        super().__init__()


class Detection(Task):
    version = 3
    headline = "map"
    heads = ("fcos", "rcnn")
    configs: ClassVar[dict[str, str]] = {}

    @staticmethod
    def described(reference: str) -> str:
        return Detection.configs.get(reference, "a config")


class Classification(Task):
    headline = "top1"
    heads = ("linear",)


class Concrete(Attack):
    def perturb(self, objective: Any, images: Any, threat_model: Any, *, streams: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class PGD(Concrete):
    steps: Annotated[int, Field(ge=1)] = 20
    step_size: float = 0.25
    random_start: bool = True
    norm: Literal["a", "b"] = "a"
    layers: tuple[int, ...] | None = None
    label: str = "x"


@dataclass(frozen=True)
class BoxAttack(Concrete):
    tasks: ClassVar[frozenset[str] | None] = frozenset({"detection"})
    norms: ClassVar[frozenset[str] | None] = frozenset({"linf", "l1"})
    randomised: ClassVar[bool] = False


def plugins_of(version: str = "1.0", layout: int = 1) -> Plugins:
    class Plugin:
        @hookimpl
        def register_layouts(self, register: Register) -> None:
            register("theirs", type("Theirs", (Layout,), {"version": layout, "backbone": lambda self, found: {}}))

        @hookimpl
        def register_backbones(self, register: Register) -> None:
            register("net", Net)

        @hookimpl
        def register_tasks(self, register: Register) -> None:
            register("detection", Detection)
            register("classification", Classification)
            register("depth", Classification)

        @hookimpl
        def register_attacks(self, register: Register) -> None:
            register("pgd", PGD)
            register("boxes", BoxAttack)

        @hookimpl
        def resolve_reference(self, kind: str, text: str) -> zoo.Victim | None:
            scheme, _, rest = text.partition(":")
            known = (kind, scheme) == ("victim", "mmdet")
            return zoo.Victim(task="detection", reference=text, settings={"config": rest}) if known else None

    found = Plugins()
    found.add(Plugin(), f"sslrob-toy {version}")
    return found


def backbone(**more: Any) -> zoo.Backbone:
    return zoo.Backbone(**{"use": "net", "license": "MIT", "weights": Weights(file=Path("w.safetensors"), sha256=SUM), **more})


def dataset(task: str, **more: Any) -> zoo.Dataset:
    record = {"task": task, "format": "coco", "path": Path("data"), "threat_model": "linf:0.5/255", "license": "MIT", "images": 300}
    return zoo.Dataset(**{**record, **more})


def head(on: str, dataset: str, kind: str = "fcos", **more: Any) -> zoo.Head:
    return zoo.Head(backbone=on, dataset=dataset, kind=kind, weights=Weights(file=Path("h.safetensors"), sha256=SUM), **more)


ZOO = Zoo(
    backbones={
        "swav-800": backbone(family="swav", default=True),
        "swav-200": backbone(family="swav"),
        "dino-a": backbone(family="dino"),
        "dino-b": backbone(family="dino"),
        "supervised": backbone(family="supervised"),
        "random": backbone(weights=None, seed=7),
    },
    datasets={
        "scenes": dataset("detection", default=True),
        "streets": dataset("detection", threat_model="linf:4/255", images=None),
        "items": dataset("classification", threat_model="l2:0.5"),
    },
    heads={
        "swav-200-scenes": head("swav-200", "scenes", clean={"map": 31.5}),
        "swav-800-streets": head("swav-800", "streets"),
        "swav-200-streets": head("swav-200", "streets", threat_model="linf:1/255"),
        "dino-a-scenes": head("dino-a", "scenes"),
        "dino-b-scenes": head("dino-b", "scenes"),
        "supervised-frozen": head("supervised", "scenes", default=True, recipe="python -m toy.train"),
        "supervised-tuned": head("supervised", "scenes", protocol="finetuned"),
        "supervised-rcnn": head("supervised", "scenes", kind="rcnn", threat_model="linf:2/255"),
        "supervised-items": head("supervised", "items", kind="linear"),
    },
    victims={
        "fcos-coco": zoo.Victim(task="detection", reference="mmdet:fcos.py", weights=Weights(url="https://x.org/w.pth", sha256=SUM)),
    },
    attacks={
        "pgd": zoo.Attack(use="pgd"),
        "pgd-50": zoo.Attack(use="pgd", settings={"steps": 50}, restarts=3),
        "embedding": zoo.Attack(use="pgd", objective="embedding"),
        "lost": zoo.Attack(use="gone"),
    },
    origins={("attacks", "lost"): Path("mine.yaml")},
)
TYPED = Words(backbone="swav", task="detection", attack="pgd")


def asked(**words: Any) -> Spec:
    return resolve(replace(TYPED, **words), ZOO, plugins_of())


def refused(**words: Any) -> SslrobError:
    with pytest.raises(SslrobError) as caught:
        asked(**words)
    return caught.value


# ---- what words mean


def test_the_version_of_a_layout_counts_where_there_is_one() -> None:
    def ids(**more: Any) -> set[str]:
        weights = {"weights": Weights(file=Path("w.pth"), sha256=SUM, **more)}
        body, top = (record.model_copy(update=weights) for record in (ZOO.backbones["swav-200"], ZOO.heads["swav-200-scenes"]))
        zoos = [replace(ZOO, backbones={**ZOO.backbones, "swav-200": body}), replace(ZOO, heads={**ZOO.heads, "swav-200-scenes": top})]
        return {resolve(TYPED, one, plugins_of(layout=version)).id for one in zoos for version in (1, 2)}

    assert ids() == {asked().id}
    assert len(ids(layout="theirs")) == 4
    assert "layout" not in asked().model_dump_json()


def test_a_head_that_is_not_the_only_one_is_told_by_its_id() -> None:
    assert "· fcos, frozen ·" in asked().sentence()
    assert "· supervised-tuned, fcos, finetuned ·" in asked(backbone="supervised", head="supervised-tuned").sentence()
    alone = asked(backbone="supervised", head="supervised-tuned")
    assert alone.head is not None
    assert alone.model_copy(update={"head": alone.head.model_copy(update={"alone": True})}).id == alone.id


def test_restarts_of_what_draws_nothing_are_refused() -> None:
    error = refused(attack="boxes", restarts=3)
    assert str(error) == "attack 'boxes' draws nothing at random: 3 restarts would find the same again"
    assert error.hint == "leave --restarts out, or choose pgd"
    assert asked(attack="boxes", restarts=1).attack.restarts == 1


def test_a_family_means_its_member_with_a_head_on_the_default_dataset() -> None:
    spec = asked()
    assert spec.backbone is not None
    assert spec.head is not None
    assert (spec.backbone.id, spec.head.id, spec.dataset.id, spec.threat_model) == ("swav-200", "swav-200-scenes", "scenes", "linf:0.5/255")
    assert spec.task.version == 3
    assert spec.task.plugin == spec.backbone.plugin == spec.attack.plugin == "sslrob-toy 1.0"
    assert spec.attack.settings == {"steps": 20, "step_size": 0.25, "random_start": True, "norm": "a", "layers": None, "label": "x"}
    assert spec.clean == {"map": 31.5}


def test_of_several_members_the_default_is_meant() -> None:
    spec = asked(dataset="streets")
    assert spec.subject == "swav-800"
    assert spec.threat_model == "linf:4/255"


def test_a_full_id_means_exactly_that() -> None:
    assert asked(backbone="swav-200", dataset="streets").subject == "swav-200"
    assert asked(backbone="swav-200", dataset="streets").threat_model == "linf:1/255"
    assert "no head of backbone 'swav-800' on dataset 'scenes'" in str(refused(backbone="swav-800"))


def test_a_dataset_says_the_task() -> None:
    spec = asked(task=None, dataset="items", backbone="supervised")
    assert spec.task.name == "classification"
    assert spec.dataset.id == "items"


def test_the_only_dataset_of_a_task_needs_no_default() -> None:
    assert asked(task="classification", backbone="supervised").dataset.id == "items"


def test_heads_by_kind_and_by_id() -> None:
    def chosen(**words: Any) -> str:
        found = asked(backbone="supervised", **words).head
        return found.id if found else ""

    assert chosen() == "supervised-frozen"
    assert chosen(head="fcos") == "supervised-frozen"
    assert chosen(head="rcnn") == "supervised-rcnn"
    assert chosen(head="supervised-tuned") == "supervised-tuned"
    assert asked(backbone="supervised", head="rcnn").threat_model == "linf:2/255"


def test_a_registered_attack_needs_no_preset() -> None:
    assert asked(attack="boxes").attack.settings == {}
    assert asked(attack="sslrob-toy/boxes").attack.use == "sslrob-toy/boxes"
    assert asked(attack="sslrob-toy/boxes").name.startswith("swav-200-scenes-boxes-")


def test_presets_are_changed_by_words() -> None:
    spec = asked(attack="pgd-50", settings=["step_size=0.1", "random_start=false", "layers=[1, 2]", "norm=b", "label=3"])
    assert spec.attack.settings == {"steps": 50, "step_size": 0.1, "random_start": False, "norm": "b", "layers": [1, 2], "label": "3"}
    assert spec.attack.restarts == 3
    assert asked(attack="pgd-50", restarts=1, settings=["steps=5"]).attack.settings["steps"] == 5
    assert asked(attack="embedding").attack.objective == "embedding"
    assert asked(attack="embedding", objective="task:ce").attack.objective == "task:ce"


def test_threat_models_from_words() -> None:
    assert asked(epsilon="8/255").threat_model == "linf:8/255"
    assert asked(epsilon="0.5", norm="l2").threat_model == "l2:0.5"
    assert asked(norm="linf").threat_model == "linf:0.5/255"


def test_whole_victims() -> None:
    spec = asked(backbone=None, victim="fcos-coco", task=None)
    assert spec.victim is not None
    assert spec.backbone is spec.head is None
    assert (spec.victim.reference, spec.dataset.id, spec.task.name) == ("mmdet:fcos.py", "scenes", "detection")
    assert spec.name == f"fcos-coco-scenes-pgd-{spec.id}"


def test_references_are_resolved_by_plugins_and_their_weights_counted(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    spec = asked(backbone=None, victim="mmdet:configs/fcos/fcos_r50.py", weights=path, dataset="streets")
    assert spec.victim is not None
    assert spec.victim.weights is not None
    assert spec.victim.weights.file == path
    assert spec.victim.weights.sha256 is not None
    assert spec.name == f"fcos_r50-streets-pgd-{spec.id}"
    assert spec.victim.settings == {"config": "configs/fcos/fcos_r50.py"}


def test_the_sentence_tells_what_was_chosen() -> None:
    assert asked().sentence() == "swav → swav-200 · scenes (test, 300 images) · fcos, frozen · pgd (20 steps) · linf:0.5/255"
    assert asked(backbone="swav-800", dataset="streets", attack="pgd-50", objective="embedding").sentence() == (
        "swav-800 · streets (test) · fcos, frozen · pgd-50 on embedding (50 steps, 3 restarts) · linf:4/255"
    )
    assert asked(backbone=None, victim="fcos-coco").sentence() == "fcos-coco · scenes (test, 300 images) · pgd (20 steps) · linf:0.5/255"


def test_amounts_are_told_as_a_person_would() -> None:
    found = asked()
    settings: dict[str, Any] = {"steps": 1, "queries": 1, "searches": 1, "draws": 2, "neighbours": 0, "smoothing": 0, "severity": 3}
    told = found.model_copy(update={"attack": found.attack.model_copy(update={"settings": settings})}).sentence()
    assert " · pgd (1 step, 1 query, 1 search, 2 draws, severity 3) · " in told


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ({"backbone": None}, "give either a backbone or a whole victim", "--backbone NAME"),
        ({"victim": "fcos-coco"}, "give either a backbone or a whole victim", "--backbone NAME"),
        ({"weights": Path("w.pth")}, "no weights at '", "check the path"),
        ({"backbone": None, "victim": "fcos-coco", "head": "fcos"}, "a whole victim has its own head", "leave --head out"),
        ({"backbone": "swaw"}, "no backbone is named 'swaw'", "did you mean 'swav'"),
        ({"attack": "pdg"}, "no attack is named 'pdg'", "did you mean 'pgd'"),
        ({"attack": "other/pgd"}, "no attack is named 'other/pgd'", "pgd"),
        ({"attack": "lost"}, "no attack is named 'gone'", "known"),
        ({"task": "detektion"}, "no task is named 'detektion'", "did you mean 'detection'"),
        ({"task": "depth"}, "no dataset in the zoo is for task 'depth'", "zoo file"),
        ({"task": None}, "neither a task nor a dataset is given", "--task classification or depth or detection"),
        ({"dataset": "scene"}, "no dataset is named 'scene'", "did you mean 'scenes'"),
        ({"dataset": "items"}, "dataset 'items' is for task 'classification', not 'detection'", "scenes, streets"),
        ({"backbone": None, "victim": "fcos-coco", "task": "classification"}, "victim 'fcos-coco' is for task 'detection'", "detection"),
        ({"backbone": None, "victim": "fcos-koko"}, "no victim is named 'fcos-koko'", "did you mean 'fcos-coco'"),
        ({"backbone": None, "victim": "mmseg:x.py"}, "no plugin understands 'mmseg:' of 'mmseg:x.py'", "install the plugin"),
        ({"backbone": None, "victim": "mmdet:x.py", "weights": Path("absent.pth")}, "no weights at ", "check the path"),
        (
            {"backbone": "dino"},
            "2 members of family 'dino' have such a head on 'scenes', and none is the default",
            "--backbone dino-a or dino-b",
        ),
        ({"backbone": "swav", "head": "rcnn"}, "no head of 'swav' on 'scenes' is named 'rcnn'", "fcos"),
        (
            {"backbone": "random"},
            "no head of backbone 'random' on dataset 'scenes' is in the zoo",
            "--backbone dino-a or dino-b or supervised",
        ),
        ({"backbone": "swav", "task": "classification"}, "no head of backbone 'swav' on dataset 'items'", "or --dataset scenes or streets"),
        (
            {"attack": "boxes", "task": "classification", "backbone": "supervised"},
            "attack 'boxes' is not defined for task",
            "it is for detection",
        ),
        ({"settings": ["step=5"]}, "attack 'pgd' has no setting 'step'", "did you mean 'steps'?"),
        ({"settings": ["wings=5"]}, "attack 'pgd' has no setting 'wings'", "its settings are steps, step_size"),
        ({"attack": "boxes", "settings": ["steps=5"]}, "attack 'boxes' has no setting 'steps'", "it has no settings"),
        ({"settings": ["steps=many"]}, "setting 'steps' of attack 'pgd': input should be a valid integer", "--set steps=VALUE"),
        (
            {"settings": ["steps=0"]},
            "setting 'steps' of attack 'pgd': input should be greater than or equal to 1, got '0'",
            "--set steps=VALUE",
        ),
        ({"settings": ["norm=c"]}, "setting 'norm' of attack 'pgd'", "--set norm=VALUE"),
        ({"settings": ["steps"]}, "setting 'steps' has no value", "write --set steps=VALUE"),
        ({"settings": ["steps=1", "steps=2"]}, "setting 'steps' is given twice", "keep one"),
        ({"restarts": 0}, "0 restarts are no attack", "1 or more"),
        ({"epsilon": "4"}, "epsilon 4 is not on the [0, 1] scale", "did you mean 4/255?"),
        ({"norm": "l2"}, "norm 'l2' has no usual epsilon here: the usual threat model is linf:0.5/255", "add --epsilon"),
        ({"norm": "l3"}, "no norm is named 'l3'", "l2"),
        (
            {"attack": "boxes", "norm": "l2", "epsilon": "0.5"},
            "attack 'boxes' is not defined for norm 'l2'",
            "add --norm l1 --epsilon VALUE",
        ),
        ({"seed": -1}, "seed '-1' is negative", "0 or more"),
        ({"precision": "bf16"}, "no precision is named 'bf16'", "did you mean 'bfloat16'?"),
    ],
)
def test_questions_that_are_refused(words: dict[str, Any], message: str, hint: str) -> None:
    error = refused(**words)
    assert message in str(error)
    assert hint in error.hint


def test_the_precision_of_the_search_counts_in_the_id_and_is_told() -> None:
    low = asked(precision="bfloat16")
    assert low.id != asked().id
    assert low.sentence() == f"{asked().sentence()} · searched in bfloat16"
    assert "precision" not in asked().model_dump(mode="json")


def test_where_no_head_is_the_recipes_of_the_others_are_told() -> None:
    assert refused(backbone="random").note == "heads on 'scenes' are trained by: python -m toy.train"


def test_a_preset_of_a_missing_component_says_whose_it_is() -> None:
    assert "attacks.lost of mine.yaml uses it" in refused(attack="lost").note


@pytest.mark.parametrize(
    ("change", "words", "message", "hint"),
    [
        (
            {"backbones": {"swav-200": backbone(settings={"dept": 3}, family="swav")}},
            {},
            "has no setting 'dept', which backbones.swav-200",
            "'depth'",
        ),
        ({"backbones": {"swav-200": backbone(use="nett", family="swav")}}, {}, "no backbone is named 'nett'", "did you mean 'net'"),
        ({"heads": {"h": head("swav-200", "scenes", kind="detr")}}, {}, "head 'h' is of kind 'detr', which task 'detection'", "fcos, rcnn"),
        ({"heads": {}}, {}, "no head of backbone 'swav' on dataset 'scenes'", "train one"),
        (
            {"datasets": {n: dataset("detection") for n in ("a", "b")}},
            {},
            "task 'detection' has 2 datasets and no default",
            "--dataset a or b",
        ),
        ({"attacks": {"pgd": zoo.Attack(use="pgd", settings={"step": 3})}}, {}, "attack 'pgd' has no setting 'step'", "'steps'"),
        (
            {"heads": {n: head("swav-200", "scenes") for n in ("g", "h")}},
            {},
            "2 heads of backbone 'swav-200' on 'scenes' are meant",
            "--head g or h",
        ),
    ],
)
def test_zoo_entries_that_do_not_work(change: dict[str, Any], words: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(SslrobError) as caught:
        resolve(replace(TYPED, **words), replace(ZOO, **change), plugins_of())
    assert message in str(caught.value)
    assert hint in caught.value.hint


# ---- ids


def changed_sum(kind: str) -> Callable[[], Spec]:
    """The same question after the file behind a record has changed."""

    def ask() -> Spec:
        weights = Weights(file=Path("w.safetensors"), sha256="cd" * 32)
        records: dict[str, Any] = {name: record.model_copy(update={"weights": weights}) for name, record in ZOO.of(kind).items()}
        return resolve(TYPED, replace(ZOO, **{f"{kind}s": records}), plugins_of())

    return ask


CHANGES: dict[str, Callable[[], Spec]] = {
    "seed": lambda: asked(seed=1),
    "epsilon": lambda: asked(epsilon="1/255"),
    "norm": lambda: asked(epsilon="0.5/255", norm="l2"),
    "settings": lambda: asked(settings=["steps=21"]),
    "restarts": lambda: asked(restarts=2),
    "objective": lambda: asked(objective="embedding"),
    "attack": lambda: asked(attack="boxes"),
    "dataset": lambda: asked(dataset="streets"),
    "plugin version": lambda: resolve(TYPED, ZOO, plugins_of("1.1")),
    "weights of the backbone": changed_sum("backbone"),
    "weights of the head": changed_sum("head"),
    "task version": lambda: asked().model_copy(update={"task": asked().task.model_copy(update={"version": 4})}),
    "evaluator": lambda: asked().model_copy(update={"sslrob": "99.0"}),
    "backbone settings": lambda: resolve(
        TYPED, replace(ZOO, backbones={"swav-200": backbone(family="swav", settings={"depth": 3})}), plugins_of()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_number_changes_the_id(change: str) -> None:
    assert CHANGES[change]().id != asked().id


def moved(folder: str) -> Zoo:
    """The same zoo, its files lying elsewhere."""
    weights = Weights(file=Path(folder, "w.pth"), sha256=SUM, format="torch")
    return replace(
        ZOO,
        backbones={name: record.model_copy(update={"weights": weights}) for name, record in ZOO.backbones.items()},
        heads={name: record.model_copy(update={"weights": weights, "clean": {}}) for name, record in ZOO.heads.items()},
        datasets={name: record.model_copy(update={"path": Path(folder), "images": 9}) for name, record in ZOO.datasets.items()},
    )


SAME: dict[str, Callable[[], Spec]] = {
    "the full id instead of the family": lambda: asked(backbone="swav-200"),
    "the default in words": lambda: asked(dataset="scenes", head="fcos", norm="linf", epsilon="1/510", settings=["steps=20"]),
    "files elsewhere": lambda: resolve(TYPED, moved("/elsewhere"), plugins_of()),
    "a preset under another name": lambda: resolve(
        replace(TYPED, attack="p"), replace(ZOO, attacks={"p": zoo.Attack(use="pgd")}), plugins_of()
    ),
}


@pytest.mark.parametrize("change", SAME)
def test_the_same_question_has_the_same_id(change: str) -> None:
    assert SAME[change]().id == asked().id


def test_the_config_of_a_whole_victim_counts_and_its_place_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(**record: Any) -> Spec:
        victims = {"fcos-coco": ZOO.victims["fcos-coco"].model_copy(update=record)}
        return resolve(replace(TYPED, backbone=None, victim="fcos-coco"), replace(ZOO, victims=victims), plugins_of())

    before = ask()
    assert ask(reference="mmdet:elsewhere/fcos.py").id == before.id
    assert ask(weights=Weights(file=Path("w.pth"), sha256=SUM, drop_prefix="student.")).id != before.id
    monkeypatch.setitem(Detection.configs, "mmdet:fcos.py", "an edited config")
    assert ask().id != before.id


def test_the_seed_of_random_weights_counts() -> None:
    heads = {"h": head("random", "scenes")}
    ids = [
        resolve(
            replace(TYPED, backbone="random"),
            replace(ZOO, heads=heads, backbones={"random": backbone(weights=None, seed=seed)}),
            plugins_of(),
        ).id
        for seed in (0, 1)
    ]
    assert ids[0] != ids[1]


def test_a_spec_survives_json_with_its_id() -> None:
    spec = asked()
    again = Spec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json"))))
    assert again == spec
    assert again.id == spec.id
    assert len(spec.id) == 8
    assert set(spec.id) <= set("0123456789abcdef")


def test_the_id_is_the_same_in_another_process() -> None:
    code = "import sys; from sslrob.spec import Spec; s = sys.stdin.read(); print(Spec.model_validate_json(s).id, 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], input=asked().model_dump_json(), capture_output=True, text=True, check=True).stdout
    assert out.split() == [asked().id, "False"]


def test_a_spec_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        asked().seed = 5  # type: ignore[misc]


# ---- settings


def test_a_class_that_is_no_dataclass_of_settings() -> None:
    class Plain:
        pass

    with pytest.raises(SslrobError, match=r"attack 'plain': .*Plain is no dataclass"):
        complete(Plain, {}, [], "attack 'plain'")


def test_settings_without_a_default_are_asked_for() -> None:
    @dataclass(frozen=True)
    class Needy(Concrete):
        size: int

    with pytest.raises(SslrobError, match="setting 'size' of attack 'needy'"):
        complete(Needy, {}, [], "attack 'needy'")
    given: dict[str, JsonValue] = {"size": 3}
    assert complete(Needy, given, [], "attack 'needy'") == {"size": 3}


def test_a_class_that_cannot_be_made() -> None:
    @dataclass(frozen=True)
    class Half(Attack):
        pass

    with pytest.raises(SslrobError, match=r"attack 'half' cannot be made: .*perturb"):
        complete(Half, {}, [], "attack 'half'")


def test_settings_that_contradict_each_other() -> None:
    @dataclass(frozen=True)
    class Picky(Concrete):
        low: int = 0
        high: int = 1

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(SslrobError, match=r"^attack 'picky': low is above high$"):
        complete(Picky, {}, ["low=5"], "attack 'picky'")


def test_what_is_wrong_in_a_list_is_told_of_the_list() -> None:
    @dataclass(frozen=True)
    class Listed(Concrete):
        radii: tuple[float, ...] = (1.0,)

        def __post_init__(self) -> None:
            if self.radii[-1] != 1:
                raise ValueError("the last is not 1")

    assert complete(Listed, {}, ["radii=[2,1]"], "attack 'listed'") == {"radii": [2.0, 1.0]}
    with pytest.raises(SslrobError, match=r"^attack 'listed': the last is not 1$"):
        complete(Listed, {}, ["radii=[2,1.5]"], "attack 'listed'")
    with pytest.raises(SslrobError, match="got '2,1'") as caught:
        complete(Listed, {}, ["radii=2,1"], "attack 'listed'")
    assert caught.value.hint == "write a list: --set radii=[VALUE,VALUE]"
