"""Zoo files: where they lie, how one is read and how all are merged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

import sslrob
from sslrob import own, yaml_file
from sslrob import plugins as plugin_host
from sslrob.errors import SslrobError, close_names
from sslrob.references import RANDOM
from sslrob.yaml_file import Document
from sslrob.zoo import FIRST_PARTY, KINDS, OWN, Study, Zoo, ZooFile
from sslrob.zoo import section as section_of
from sslrob.zoo_mistakes import problem

SECTIONS = {section_of(kind): kind for kind in KINDS}
_parsed = lru_cache(maxsize=32)(yaml_file.parsed)  # a command may read the same files several times; nobody changes what comes out
SCHEMA = "`sslrob zoo schema` prints what each entry may hold"
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Part:
    """One zoo file, on its way into the zoo.

    Attributes:
        collection: who brings it: sslrob, a plugin's distribution, or you.
    """

    document: Document
    records: ZooFile
    collection: str = OWN

    def entries(self) -> Iterator[tuple[str, str, Any]]:
        """Section, name and record of every entry."""
        for section in SECTIONS:
            for name, record in getattr(self.records, section).items():
                yield section, name, record

    def where(self, *keys: str | int) -> str:
        """`FILE:LINE` of an entry."""
        return f"{self.document.path}:{self.document.line(keys)}"


class Misfit(SslrobError):
    """A file whose entries do not go together with those of the files before it."""

    def __init__(self, part: Part, keys: Key, message: str, *, hint: str) -> None:
        super().__init__(f"{part.where(*keys)}: {message}", hint=hint)
        self.part = part


def first_party() -> Path:
    """sslrob's own zoo: inside the installed package, or beside it in a checkout."""
    folder = Path(sslrob.__file__).parent
    inside = folder / "zoo.yaml"
    return inside if inside.exists() else folder.parent / "zoo.yaml"


def users(paths: Iterable[Path] = ()) -> list[Path]:
    """The user's own files: `$SSLROB_ZOO`, then `paths`, then `zoo.yaml` in the platform's configuration folder, if there."""
    listed = [Path(p).expanduser() for p in os.environ.get("SSLROB_ZOO", "").split(os.pathsep) if p]
    configured = platformdirs.user_config_path("sslrob") / "zoo.yaml"
    return [*listed, *(Path(p).expanduser() for p in paths), *([configured] if configured.exists() else [])]


def load(paths: Iterable[Path] = (), plugins: plugin_host.Plugins | None = None) -> Zoo:
    """The whole zoo: first-party, plugins', the user's files, the user's own entries (`sslrob.own`).

    A file that nobody wrote by hand here, a plugin's or an own entry's, harms nothing else where it is broken or does not fit: it is left
    out, and named in `Zoo.broken`.

    Args:
        paths: further files of the user's, as after `--zoo`.
        plugins: those of this environment by default.

    Raises:
        SslrobError: sslrob's or the user's own files are broken, or do not go together.
    """
    plugins = plugin_host.installed() if plugins is None else plugins
    broken: dict[str, str] = {}
    mine = _distinct(users(paths))
    required = [read(first_party(), FIRST_PARTY), *(read(path, OWN) for path in mine)]
    brought = {path.resolve(): collection for path, collection in plugins.zoo_files().items()}
    theirs, made = (
        list(_readable({path: collection for path, collection in files.items() if path not in mine}, broken))
        for files in (brought, {path.resolve(): OWN for path in own.files()})
    )
    while True:
        try:
            return replace(merge([required[0], *theirs, *required[1:], *made]), broken=broken, absent=tuple(plugins.complaints()))
        except Misfit as error:
            optional = theirs if error.part in theirs else made
            if error.part not in optional:
                raise
            optional.remove(error.part)
            broken[str(error.part.document.path)] = str(error)


def _readable(files: Mapping[Path, str], broken: dict[str, str]) -> Iterator[Part]:
    """Those files that are whole; why the others are not goes to `broken`."""
    for path, collection in files.items():
        try:
            yield read(path, collection)
        except SslrobError as error:
            broken[str(path)] = str(error)


def read(path: Path, collection: str = OWN) -> Part:
    """One file, validated by itself.  Relative paths in it are meant relative to its folder.

    Raises:
        SslrobError: names file, line, key path and value of the first mistake; the note has the others.
    """
    path = path.resolve()
    document = _parsed(path, yaml_file.text_of(path))
    try:
        records = ZooFile.model_validate({} if document.data is None else document.data, context={"folder": path.parent})
        return Part(document, records, collection)
    except ValidationError as error:
        problems = [problem(document, details) for details in error.errors()]
        (message, hint), *others = problems
        note = "; ".join(text for text, _ in others[:5])
        raise SslrobError(message, hint=hint or SCHEMA, note=note and f"{len(others)} more: {note}") from None


def merge(parts: Sequence[Part]) -> Zoo:
    """The zoo of several files.

    Raises:
        Misfit: a name is there twice, a head is of nothing, a family or task has two defaults; names the files.
    """
    sections: dict[str, Any] = {section: {} for section in (*SECTIONS, "untrained")}
    homes: dict[tuple[str, str], Part] = {}
    for part in parts:
        for section, name, record in part.entries():
            if section == "heads" and record.untrained:
                section = "untrained"
            if (section, name) in homes:
                written = "heads" if section == "untrained" else section
                first = homes[section, name].where(written, name)
                raise Misfit(part, (written, name), f"{SECTIONS[written]} {name!r} is already in {first}", hint="rename one of them")
            homes[section, name] = part
            sections[section][name] = record
    mirrored = _mirrored(parts)
    for section in ("backbones", "heads", "victims"):
        sections[section] = {name: mirrored(record) for name, record in sections[section].items()}
    origins = {key: part.document.path for key, part in homes.items()}
    zoo = Zoo(**sections, origins=origins, collections={part.document.path: part.collection for part in parts})
    _check_heads(zoo, homes)
    _check_studies(zoo, homes)
    _check_families(zoo, homes)
    _check_defaults(zoo, homes)
    return zoo


def _mirrored(parts: Sequence[Part]) -> Callable[[Any], Any]:
    """Adds to a record's weights the mirrors that the files' `mirrors` name for their address."""
    starts = [(start, other) for part in parts for start, other in part.records.mirrors.items()]

    def add(record: Any) -> Any:
        url = record.weights and record.weights.url
        found = tuple(other + url.removeprefix(start) for start, other in starts if url and url.startswith(start))
        if not found:
            return record
        weights = record.weights.model_copy(update={"mirrors": (*found, *record.weights.mirrors)})
        return record.model_copy(update={"weights": weights})

    return add


def _check_heads(zoo: Zoo, homes: dict[tuple[str, str], Part]) -> None:
    for section, heads in (("heads", zoo.heads), ("untrained", zoo.untrained)):
        for name, head in heads.items():
            for kind, wanted in (("backbone", head.backbone.removesuffix(RANDOM)), ("dataset", head.dataset)):
                if ":" not in wanted:  # a reference means something only where the plugin of its scheme is asked
                    _require(zoo, kind, wanted, homes[section, name], ("heads", name, kind))


def _check_studies(zoo: Zoo, homes: dict[tuple[str, str], Part]) -> None:
    for name, study in zoo.studies.items():
        home, here = homes["studies", name], ("studies", name)
        for kind, wanted, keys in _named_by(study):
            _require(zoo, kind, wanted, home, (*here, *keys))
        if study.reference not in (None, *study.backbones):
            message = f"studies.{name}.reference: {study.reference!r} is not one of the study's backbones"
            raise Misfit(home, (*here, "reference"), message, hint="add it to backbones, or choose one of them")
        for dataset, asked in study.datasets.items():
            task = zoo.datasets[dataset].task
            for recipe in (*asked.recipes, *asked.factor_recipes):
                if zoo.recipes[recipe].task.rpartition("/")[2] != task.rpartition("/")[2]:
                    message = f"studies.{name}.datasets.{dataset}: recipe {recipe!r} is for task {zoo.recipes[recipe].task!r}, not {task!r}"
                    raise Misfit(home, (*here, "datasets", dataset), message, hint="choose a recipe of that task: sslrob zoo list recipes")


def _named_by(study: Study) -> Iterator[tuple[str, str, tuple[str | int, ...]]]:
    """Kind and name of everything that a study names, and where."""
    for i, backbone in enumerate(study.backbones):
        yield "backbone", backbone, ("backbones", i)
    for i, attack in enumerate(study.attacks):
        yield "attack", attack, ("attacks", i)
    for hardened, natural in study.hardened.items():
        yield "backbone", hardened, ("hardened", hardened)
        yield "backbone", natural, ("hardened", hardened)
    for factor, variants in study.factors.items():
        yield from (("backbone", variant, ("factors", factor, i)) for i, variant in enumerate(variants))
    for dataset, asked in study.datasets.items():
        yield "dataset", dataset, ("datasets", dataset)
        for field in ("recipes", "factor_recipes"):
            yield from (("recipe", recipe, ("datasets", dataset, field, i)) for i, recipe in enumerate(getattr(asked, field)))


def _require(zoo: Zoo, kind: str, wanted: str, home: Part, keys: Key) -> None:
    """Raises:
    Misfit: the zoo has no such entry.
    """
    if wanted not in zoo.of(kind):
        close = close_names(wanted, zoo.of(kind))
        hint = f"did you mean {close[0]!r}?" if close else f"add {wanted!r} to {section_of(kind)}"
        raise Misfit(home, keys, f"{'.'.join(map(str, keys))}: no {kind} is named {wanted!r}", hint=hint)


def _check_families(zoo: Zoo, homes: dict[tuple[str, str], Part]) -> None:
    """A family and a backbone outside it have two names; the file that came later is the one to change."""
    read_first = list(dict.fromkeys(id(part) for part in homes.values()))
    for name, record in zoo.backbones.items():
        family = record.family
        if family is None or family not in zoo.backbones or zoo.backbones[family].family == family:
            continue
        member, namesake = homes["backbones", name], homes["backbones", family]
        if read_first.index(id(namesake)) > read_first.index(id(member)):
            message = f"backbones.{family}: {family!r} is also a family, that of {name!r} in {member.where('backbones', name)}"
            raise Misfit(namesake, ("backbones", family), message, hint="rename the backbone, or let it join the family")
        message = f"backbones.{name}.family: {family!r} is also a backbone outside this family, in {namesake.where('backbones', family)}"
        raise Misfit(member, ("backbones", name, "family"), message, hint="rename the family or the backbone")


def _check_defaults(zoo: Zoo, homes: dict[tuple[str, str], Part]) -> None:
    firsts: dict[tuple[str, ...], str] = {}
    groups: dict[str, Callable[[Any], tuple[str, ...]]] = {
        "backbones": lambda record: ("family", str(record.family)),
        "datasets": lambda record: ("task", record.task),
        "heads": lambda record: ("backbone and dataset", record.backbone, record.dataset),
    }
    for section, group in groups.items():
        for name, record in getattr(zoo, section).items():
            if not record.default:
                continue
            collection = zoo.collection("backbone", name) if section == "backbones" else ""
            first = firsts.setdefault((section, collection, *group(record)), name)
            if first != name:
                what, *whose = group(record)
                there = homes[section, first].where(section, first)
                whom = f"{what} {' and '.join(map(repr, whose))}"
                message = f"{section}.{name}.default: a second default of the {whom}, after {first!r} in {there}"
                raise Misfit(homes[section, name], (section, name, "default"), message, hint="keep one default")


def _distinct(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(path.resolve() for path in paths))
