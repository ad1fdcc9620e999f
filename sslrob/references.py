"""Backbones that no zoo file names: references to elsewhere, random weights, a file in the place of the weights.

Each becomes a record of the zoo for one command, under a word that its heads name as their backbone:

    SCHEME:REST                 what a plugin resolves, such as timm:resnet50.a1_in1k
    SCHEME:REST?KEY=VALUE&…     with these settings of the backbone, such as timm:vit_small_patch16_224.dino?readout=cls4
    file:PATH?as=NAME           the architecture and the settings of backbone NAME, with the weights of a file; ? in PATH is written %3F
    WORD+random                 without its weights: they are drawn from its seed
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sslrob.choice import member
from sslrob.errors import SslrobError
from sslrob.zoo import Backbone, Settings, Victim, Weights, Zoo

if TYPE_CHECKING:
    from sslrob.plugins import Plugins

RANDOM = "+random"
FILE, HUB, AS = "file:", "hub:", "as"
NAME = re.compile(r"[a-z0-9][a-z0-9.+_-]*")
BARE: dict[str, Any] = {  # of an entry, without what is true of its weights alone
    "weights": None,
    "family": None,
    "default": False,
    "factors": (),
    "pretraining": None,
    "hardening": None,
    "reported": {},
    "license": "",
}


def chosen(zoo: Zoo, plugins: Plugins, word: str, dataset: str, weights: str | Path | None = None) -> tuple[str, Zoo]:
    """The word under which heads know the backbone, and the zoo with that backbone in it; a name or a family stays as it is.

    A file is known by its whole path, from whatever folder it is meant.

    Args:
        word: a backbone or a family of the zoo, or any of the words above.
        dataset: which member of a family is meant with other weights may depend on it.
        weights: "random", or a checkpoint, instead of its own.

    Raises:
        SslrobError: nothing is called so, no plugin understands it, or a family leaves open which backbone is meant.
    """
    word = _placed(word)
    if weights is not None and str(weights) != "random":
        word = f"{_of_file(Path(weights))}?{AS}={_single(zoo, word.removesuffix(RANDOM), dataset)}"
    elif weights is not None and not word.endswith(RANDOM):
        word += RANDOM
    base = word.removesuffix(RANDOM)
    if word in zoo.backbones or (base == word and ":" not in word):
        return word, zoo
    name = _single(zoo, base, dataset) + word[len(base) :]
    record = backbone(zoo, plugins, name)
    if record.weights is None and name == base:
        raise SslrobError(f"there are no weights of {word!r}", hint="add --weights random, or --weights FILE")
    return name, replace(zoo, backbones={**zoo.backbones, name: record})


def backbone(zoo: Zoo, plugins: Plugins, word: str) -> Backbone:
    """The record of a backbone's name, or of any of the words above.

    Raises:
        SslrobError: see `chosen`.
    """
    if word.endswith(RANDOM) and word not in zoo.backbones:
        return backbone(zoo, plugins, word.removesuffix(RANDOM)).model_copy(update=BARE)
    if ":" not in word or word in zoo.backbones:
        named: Backbone = zoo.get("backbone", word)
        return named
    bare, given = split(word)
    if bare.startswith(FILE) and AS in given:
        return _like(zoo, plugins, bare, given)
    found = plugins.resolve("backbone", word)
    if not isinstance(found, Backbone):
        raise misunderstood(word, plugins)
    return found


def victim(plugins: Plugins, text: str) -> Victim:
    """The record of a whole victim that a reference means.

    Raises:
        SslrobError: no plugin understands it.
    """
    found = plugins.resolve("victim", text)
    if not isinstance(found, Victim):
        raise misunderstood(text, plugins)
    return found


def file_of(bare: str) -> Path:
    """The file of `file:PATH`, as a whole path; %3F in it is a question mark, which would begin settings, and %25 a per cent sign."""
    quoted = {"%3F": "?", "%25": "%"}
    return Path(re.sub("%(3F|25)", lambda found: quoted[found[0]], bare.removeprefix(FILE))).expanduser().resolve()


def misunderstood(text: str, plugins: Plugins) -> SslrobError:
    """The error for a reference that no plugin takes."""
    scheme = text.partition(":")[0]
    return SslrobError(
        f"no plugin understands {scheme + ':'!r} of {text!r}",
        hint="install the plugin of that scheme; what is installed: sslrob plugins list",
        note="; ".join(plugins.complaints()),
    )


def split(text: str) -> tuple[str, Settings]:
    """`SCHEME:REST?KEY=VALUE&…` as SCHEME:REST and the settings: numbers, words, lists such as `0.5,0.5,0.5`, or whatever YAML says.

    Raises:
        SslrobError: a setting has no value.
    """
    bare, _, query = text.partition("?")
    settings: Settings = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            hint = "write ?KEY=VALUE&KEY=VALUE, in quotes for the shell" + ("; a ? of the path is %3F" if bare.startswith(FILE) else "")
            raise SslrobError(f"setting {part!r} of {text!r} has no value", hint=hint)
        try:
            settings[key] = yaml.safe_load(f"[{value}]" if "," in value and value[0] not in "[{" else value)
        except yaml.YAMLError as error:
            raise SslrobError(f"setting {part!r} of {text!r} cannot be read", hint="write a number, a word or a list") from error
    return bare, settings


def file_safe(word: str) -> str:
    """A name of the zoo, and so of files and folders, for a backbone's word; the same word always gives the same, and no other does."""
    if NAME.fullmatch(word):
        return word
    base = word.removesuffix(RANDOM)
    end = word[len(base) :]
    scheme, _, rest = base.partition(":")
    if NAME.fullmatch(scheme) and NAME.fullmatch(rest):
        return f"{scheme}-{rest}{end}"
    kind, stem = (
        re.sub(r"[^a-z0-9.+_-]+", "-", part.lower()).strip("-.+_") for part in (scheme, rest.partition("?")[0].rpartition("/")[2])
    )
    digest = hashlib.sha256((rest if kind == scheme else base).encode()).hexdigest()[:6]
    return f"{kind or 'x'}-{stem}-{digest}{end}"


def _placed(word: str) -> str:
    """The word with the whole path of the file, or of the folder of code, that it begins with, if it begins with one."""
    bare, mark, rest = word.removesuffix(RANDOM).partition("?")
    end = f"{mark}{rest}{word[len(bare + mark + rest) :]}"
    if bare.startswith(FILE):
        return _of_file(file_of(bare)) + end
    repository, _, entry = bare.removeprefix(HUB).rpartition(":")
    if bare.startswith(HUB) and repository and (folder := Path(repository).expanduser()).is_dir():
        return f"{HUB}{folder.resolve()}:{entry}{end}"
    return word


def _of_file(path: Path) -> str:
    """`file:PATH`, which `file_of` reads."""
    return FILE + re.sub("%(?=3F|25)", "%25", str(path.expanduser().resolve())).replace("?", "%3F")


def _single(zoo: Zoo, word: str, dataset: str) -> str:
    """The name of a backbone, or of a family's usual one; a reference is one already."""
    return word if ":" in word else member(word, dataset, zoo)


def _like(zoo: Zoo, plugins: Plugins, bare: str, given: Settings) -> Backbone:
    """A file's tensors in the architecture of another backbone, named as a plugin recognises them, or else as the architecture does."""
    name = str(given[AS])
    model, settings = backbone(zoo, plugins, name), {key: value for key, value in given.items() if key != AS}
    weights, told = Weights(file=file_of(bare)), "its tensors are named as the architecture's"
    if weights.file is None or not weights.file.is_file():
        raise SslrobError(f"no weights at {str(weights.file)!r}", hint="check the path")
    try:
        found = plugins.resolve("backbone", bare)
    except SslrobError:  # nobody recognises it, so it has to fit as it is; if it does not, that is told when it is read
        found = None
    if isinstance(found, Backbone) and found.weights is not None and found.use == model.use:
        weights, told = found.weights, f"its tensors are named as in layout {found.weights.layout!r}"
    notes = f"{bare}: the architecture of {name}; {told}"
    return model.model_copy(
        update={**BARE, "weights": weights, "settings": {**model.settings, **settings}, "license": "unknown", "notes": notes}
    )
