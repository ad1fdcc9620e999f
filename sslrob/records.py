"""What an entry of a zoo file may hold: one record a kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sslrob import epsilon
from sslrob.errors import SslrobError


def _path(value: Any, info: ValidationInfo) -> Any:
    """A path as it is meant: environment variables filled in, relative to the folder of the file it stands in.

    One that begins with a variable that is not set stays as it is written; see `unset`.
    """
    if not isinstance(value, str) or not info.context:
        return value
    written = Path(os.path.expandvars(value))
    return written if unset(written) else info.context["folder"] / written.expanduser()


def unset(path: Path) -> str:
    """The environment variable that a path of a zoo file begins with and that is not set; empty where there is none."""
    first = path.parts[0] if path.parts else ""
    return first.removeprefix("$").strip("{}") if first.startswith("$") else ""


def _threat_model(text: str) -> str:
    try:
        return epsilon.write(*epsilon.parse_text(text))
    except SslrobError as error:
        raise PydanticCustomError("threat_model", "{reason}", {"reason": str(error), "hint": error.hint}) from error


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.+_-]*$")]
Reference = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]*:.+$")]  # SCHEME:REST, such as timm:resnet50.a1_in1k
Use = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._-]+/)?[a-z0-9][a-z0-9.-]*$")]  # NAME or DISTRIBUTION/NAME of a component
HubFile = Annotated[str, StringConstraints(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)+(@[\w-][\w.-]*(/[\w-][\w.-]*)*)?$")]  # no part is `..`
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LocalPath = Annotated[Path, BeforeValidator(_path)]
ThreatModelText = Annotated[str, AfterValidator(_threat_model)]
Settings = dict[str, JsonValue]
Protocol = Literal["linear", "knn", "frozen", "finetuned"]


class Record(BaseModel):
    """What every entry shares: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Weights(Record):
    """Where a checkpoint lies, and how to read it."""

    file: LocalPath | None = Field(None, description="path, relative to this zoo file")
    url: str | None = Field(None, pattern=r"^https?://", description="where to download it; needs sha256")
    hf: HubFile | None = Field(None, description="ORG/NAME[/FILE][@REVISION] on the Hugging Face hub; FILE is model.safetensors by default")
    mirrors: tuple[str, ...] = Field((), description="other urls of the same file, tried in order where the first fails")
    size: int | None = Field(None, gt=0, description="of the whole file, in bytes")
    sha256: Sha256 | Literal["unknown"] | None = Field(
        None,
        description="of the whole file; checked before it is opened; unknown: what the first download brings is pinned on this machine",
    )
    published_hash: str | None = Field(
        None, pattern=r"^(sha256|md5):[0-9a-f]{6,64}$", description="the start of a checksum that the publisher gives; checked at download"
    )
    format: Literal["safetensors", "torch"] | None = Field(None, description="null: as the suffix says; no format executes code")
    layout: Use | None = Field(
        None,
        exclude_if=lambda name: name is None,
        description="how the file names its tensors, as a plugin registered it; null: as the module does",
    )
    drop_prefix: str = Field("", description="what the names of the wanted tensors start with, such as module.; other tensors are left out")
    ignore: tuple[str, ...] = Field((), description="starts of the names of tensors that the module has no use for, such as prototypes")

    @model_validator(mode="after")
    def _one_source(self) -> Weights:
        if sum(source is not None for source in (self.file, self.url, self.hf)) != 1:
            raise PydanticCustomError("source", "needs either file, url or hf", {"hint": "give one of them"})
        if self.file is None and self.sha256 is None:
            hint = "add the sha256 of the file behind it, or `sha256: unknown`, which is pinned at the first download"
            raise PydanticCustomError("source", "has a source elsewhere but no sha256", {"hint": hint})
        if self.layout is not None and self.format is not None:
            hint = "leave format out: a layout reads its own kind of file"
            raise PydanticCustomError("source", "has both layout and format", {"hint": hint})
        return self


class Pretraining(Record):
    """How the weights came to be."""

    method: str
    data: str
    epochs: float | None = None
    batch_size: int | None = None
    augmentations: tuple[str, ...] = ()
    steps: int | None = None
    seed: int | None = None
    recipe: str = Field("", description="the script or command that does it again")
    log: LocalPath | None = Field(None, description="of the run: loss and k-NN accuracy by step, one JSON object a line")
    notes: str = ""


class Hardening(Record):
    """How a backbone was hardened, and from which."""

    backbone: Name | Reference = Field(description="the natural one that it started from")
    defense: Use
    settings: Settings = Field({}, description="of the defense, all of them")
    attack: Use = Field(description="the one inside the training: a preset, or a registered one")
    attack_settings: Settings = Field({}, description="of that attack, all of them")
    threat_model: ThreatModelText = Field(description="inside the training")
    dataset: Name = Field(description="whose fit split it was trained on")
    seed: int = 0
    made_from: str = Field("", description="changes with whatever changes the weights; tells a later call that they are made already")
    recipe: str = Field("", description="the command that does it again")
    log: LocalPath | None = Field(None, description="of the training: the measures of each step, one JSON object a line")


class Backbone(Record):
    """An architecture with weights."""

    use: Use = Field(description="the registered backbone")
    settings: Settings = Field({}, description="its constructor's arguments")
    weights: Weights | None = Field(None, description="null: random weights, drawn from seed")
    seed: int = Field(0, description="of random weights")
    family: Name | None = Field(None, description="the word that means whichever member has a head on the dataset")
    default: bool = Field(False, description="the family's first choice in its collection: sslrob's own, a plugin's, or yours")
    factors: tuple[Name, ...] = Field((), description="the comparisons that it serves, such as duration, batch-size or architecture")
    pretraining: Pretraining | None = None
    hardening: Hardening | None = Field(None, description="null: natural")
    paper: str = ""
    license: str
    parameters: int | None = Field(None, gt=0, description="how many numbers it has learned")
    reported: dict[str, float] = Field({}, description="metrics that its authors report, in percent")
    notes: str = Field("", description="what else to know of it, such as how a reference was understood")


class FitSplit(Record):
    """Images for whatever learns: heads, defenses, universal attacks.  Never those that are evaluated."""

    path: LocalPath
    settings: Settings = Field({}, description="in addition to the dataset's")
    images: int | None = Field(None, gt=0)


class Dataset(Record):
    """Images and annotations to evaluate on."""

    task: Use
    format: Name = Field(description="the layout, as the task calls it")
    path: LocalPath
    split: str = "test"
    images: int | None = Field(None, gt=0, description="how many")
    classes: tuple[str, ...] = Field((), description="names in the order of the labels; empty: the data's own")
    settings: Settings = Field({}, description="what else the format needs")
    threat_model: ThreatModelText = Field(description="the usual one on this data, NORM:EPSILON on the [0, 1] scale, such as linf:4/255")
    default: bool = Field(False, description="what the task alone means")
    fit: FitSplit | None = None
    license: str
    description: str = ""
    source: str = Field("", description="where to get it, and what has to lie where")


class Head(Record):
    """A trained head of one backbone on one dataset."""

    backbone: Name | Reference = Field(description="of the zoo, or a reference such as timm:resnet50.a1_in1k")
    body: Settings = Field({}, description="settings of the backbone under this head, instead of its own")
    dataset: Name
    kind: Name = Field(description="as the task calls it, such as linear, fcn or fcos")
    settings: Settings = {}
    protocol: Protocol = Field("frozen", description="what was trained: the head alone, or the backbone too; knn: nothing")
    weights: Weights | None = Field(
        None, description="frozen: the head's tensors; finetuned: the backbone's too; knn: none; else null: whoever wants it trains it"
    )
    clean: dict[str, float] = Field({}, description="metrics, in percent, without an attack, of a run here that others can repeat")
    published: dict[str, float] = Field({}, exclude_if=lambda found: not found, description="the same, as others measured them")
    threat_model: ThreatModelText | None = Field(None, description="instead of the dataset's")
    default: bool = Field(False, description="the first choice of this backbone on this dataset")
    recipe: str = Field("", description="the script or command that trains it again")
    made_from: str = Field(
        "", description="changes with the backbone's weights, the recipe and the data set it was made from; empty: not known"
    )
    backbone_sha256: Sha256 | None = Field(
        None,
        exclude_if=lambda digest: digest is None,
        description="of the file of weights of the backbone it was trained on; on another it is refused; null: not known",
    )

    def reads(self, backbone: Backbone) -> Backbone:
        """A backbone as this head reads it: with the settings of `body` instead of its own."""
        return backbone.model_copy(update={"settings": {**backbone.settings, **self.body}}) if self.body else backbone

    @property
    def untrained(self) -> bool:
        """Whether it is a record only, and the command in `recipe` makes the head."""
        return self.weights is None and self.protocol != "knn" and bool(self.recipe)


class Recipe(Record):
    """How a head is trained on a frozen backbone, or together with it."""

    task: Use
    kind: Name = Field(description="of head, as the task calls it")
    protocol: Protocol
    settings: Settings = Field({}, description="of the head")
    schedule: Settings = Field({}, description="arguments of `sslrob.training.Schedule`; none: the head is solved, not trained by steps")
    batch_size: int = Field(16, ge=1)
    default: bool = Field(False, description="the first choice for its task and protocol")
    description: str = ""


class Victim(Record):
    """A whole model, with its own backbone and preprocessing."""

    task: Use
    reference: str = Field(description="SCHEME:REST, such as mmdet:CONFIG", pattern=r"^[a-z0-9-]+:.")
    weights: Weights | None = None
    settings: Settings = {}
    classes: tuple[str, ...] = ()
    clean: dict[str, float] = {}
    threat_model: ThreatModelText | None = Field(None, description="instead of the dataset's")
    paper: str = ""
    license: str = ""
    notes: str = Field("", description="what else to know of it, such as how a reference was understood")


class Attack(Record):
    """A search, what it raises, and its settings."""

    use: Use
    objective: str = Field(
        "task", description="task, task:LOSS, or on the backbone alone embedding or activation, such as embedding:l2:tokens"
    )
    settings: Settings = {}
    restarts: int = Field(1, ge=1)
    description: str = ""
    paper: str = ""


class Defense(Record):
    """A way to harden, and the attack inside its training."""

    use: Use
    attack: Use = Field(description="a preset, or a registered one")
    threat_model: ThreatModelText | None = Field(None, description="inside the training; null: the dataset's")
    settings: Settings = {}
    description: str = ""
    paper: str = ""


class Questions(Record):
    """What a study asks on one data set."""

    recipes: tuple[Name, ...] = Field((), description="of the heads of the study's backbones")
    factor_recipes: tuple[Name, ...] = Field((), description="of the heads of the backbones that vary in a factor")
    epsilons: tuple[ThreatModelText, ...] = Field(min_length=1, description="threat models, the weakest first, such as linf:1/255")
    limit: int | None = Field(None, ge=1, description="images of each run; null: all")


class Study(Record):
    """A grid of evaluations, and what is compared in it."""

    description: str = ""
    backbones: tuple[Name, ...] = Field(min_length=1, description="compared with each other")
    reference: Name | None = Field(None, description="one of them, which each other one is tested against; null: no tests")
    attacks: tuple[Name, ...] = Field(min_length=1, description="each with each epsilon")
    datasets: dict[Name, Questions] = Field(min_length=1, description="in the order of their runs: begin with what is cheap")
    hardened: dict[Name, Name] = Field({}, description="hardened backbones, each with its natural self; evaluated too, and shown beside it")
    factors: dict[str, tuple[Name, ...]] = Field({}, description="what is varied, each with the backbones that vary in it, in order")
    seed: int = Field(0, ge=0, description="of every image's random numbers")


class ZooFile(Record):
    """One zoo.yaml."""

    model_config = ConfigDict(title="sslrob zoo")

    format: Literal[1] = Field(alias="schema", description="of this file")
    mirrors: dict[str, str] = Field(
        {}, description="how addresses of weights begin, each with what they may begin with instead; tried where the address fails"
    )
    backbones: dict[Name, Backbone] = {}
    datasets: dict[Name, Dataset] = {}
    heads: dict[Name, Head] = {}
    victims: dict[Name, Victim] = {}
    recipes: dict[Name, Recipe] = {}
    attacks: dict[Name, Attack] = {}
    defenses: dict[Name, Defense] = {}
    studies: dict[Name, Study] = {}
