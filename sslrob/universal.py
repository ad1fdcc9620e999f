"""One move for all images: learned once, kept in a file, and used again on other backbones, heads and tasks."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor

from sslrob import checkpoint
from sslrob.attack import Attack
from sslrob.errors import SslrobError
from sslrob.lessons import Draft, Goal, Lesson, Lessons
from sslrob.objective import Access, Objective
from sslrob.representation import resized
from sslrob.runs import telling_of_the_disk
from sslrob.streams import Streams
from sslrob.threat_model import ThreatModel

FILE = "universal.safetensors"  # in the folder of the run that learned it
FORMAT = 1
KEY = "sslrob"  # of what a file tells of its move
AGAIN = "copy it again, or move its run's folder away and do that run again"
GREY = 0.5


class Universal(Attack):
    """An attack that learns one move, the same for all images; subclasses are searches for it.

    The move has the shape of the first image learned from; for images of another shape it is resized.  Each image is then projected: into
    the pixel range, and into the ball, which a resized move may leave.

    Attributes:
        in_images: `length` counts images, not steps of a batch each.
        on_one_batch: the images do not matter, but for their shape: the first batch comes again and again.
    """

    randomised: ClassVar[bool] = False  # once learned, nothing is drawn
    in_images: ClassVar[bool] = False
    on_one_batch: ClassVar[bool] = False  # settings may decide: then a property

    @property
    @abstractmethod
    def length(self) -> int:
        """How many steps, or images, it learns in."""

    @abstractmethod
    def begin(self, images: Tensor, threat_model: ThreatModel, stream: Streams) -> Tensor:
        """The move (3, h, w) to begin with, in the ball around zero.

        Args:
            images: (n, 3, h, w) the first to learn from.
            stream: of the one move.
        """

    @abstractmethod
    def step(self, move: Tensor, lesson: Lesson, threat_model: ThreatModel, stream: Streams) -> Tensor:
        """A better move (3, h, w), in the ball; it depends on the arguments alone, so that a run may be stopped between any two steps."""

    def learn(self, lessons: Lessons, threat_model: ThreatModel, streams: Streams) -> Tensor:
        """The move (3, h, w)."""
        stream = first(streams)
        if (draft := lessons.draft()) is None:
            _, images = lessons.first()
            draft = Draft(self.begin(images, threat_model, stream), 0, 0, stream.state)
        stream.resume(draft.stream)
        batches = ((0, *batch) for batch in repeat(lessons.first())) if self.on_one_batch else lessons.around(draft.place)
        while draft.done < self.length:
            place, objective, images = next(batches)
            left = self.length - draft.done
            move = self.step(draft.move, Lesson(objective, images, draft.done / self.length, left), threat_model, stream).detach()
            draft = Draft(move, draft.done + (min(left, len(images)) if self.in_images else 1), place, stream.state)
            lessons.keep(draft, self.length)
        return draft.move

    def fit(self, batches: Iterable[Goal], threat_model: ThreatModel, *, streams: Streams) -> Move:
        return Move(self.learn(batches if isinstance(batches, Lessons) else Lessons(batches), threat_model, streams))

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        raise SslrobError(f"{type(self).__name__} has learned nothing yet", hint="fit() it on other images first, or let sslrob eval do it")


@dataclass(frozen=True)
class Move(Attack):
    """A universal attack that has learned: `move` (3, h, w), added to every image alike."""

    move: Tensor
    access: ClassVar[Access] = "decision"  # it does not look at the victim at all
    randomised: ClassVar[bool] = False

    def perturb(self, objective: Objective, images: Tensor, threat_model: ThreatModel, *, streams: Streams) -> Tensor:
        del objective, streams
        return moved(images, self.move.to(images), threat_model)


def moved(images: Tensor, move: Tensor, threat_model: ThreatModel) -> Tensor:
    """Images (n, 3, h, w) with one move (3, any height, any width), each in its own threat model."""
    return threat_model.project(images + resized(move[None], images), images)


def in_ball(move: Tensor, threat_model: ThreatModel) -> Tensor:
    """The nearest move in the ball: what a grey image, far from the ends of the pixel range, may do."""
    grey = torch.full_like(move, GREY)[None]
    return (threat_model.project(grey + move, grey) - grey)[0]


def first(streams: Streams) -> Streams:
    """The stream of the first image: the one that a universal attack draws from."""
    return streams[torch.arange(len(streams)) == 0]


def save(path: Path, move: Move, told: Mapping[str, Any]) -> None:
    """Write a move, whole or not at all; the same move and the same words give the same bytes.

    Raises:
        RunFailed: the disk does not take it.
    """
    text = json.dumps({"format": FORMAT, **told}, sort_keys=True)
    part = path.with_suffix(".part")
    with telling_of_the_disk(path.parent):
        with part.open("wb") as file:
            file.write(serialised({"move": move.move.float().cpu().contiguous()}, metadata={KEY: text}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def load(path: Path) -> Move:
    """The move of a file.

    Raises:
        SslrobError: the file is missing, damaged, or holds none.
    """
    told(path)
    move = checkpoint.load(path, "safetensors").get("move")
    if move is None or move.ndim != 3 or move.shape[0] != 3 or not move.is_floating_point():
        shape = "none" if move is None else f"{move.dtype} {tuple(move.shape)}"
        raise SslrobError(f"{str(path)!r} holds no move (3, height, width), but {shape}", hint="learn it again")
    return Move(move)


def told(path: Path) -> dict[str, Any]:
    """What a file tells of its move: how it was learned, on what, from which images, and in which threat model.

    Raises:
        SslrobError: the file is missing, damaged, or none of a universal move.
    """
    hint = "give the folder of a run of a universal attack, or the universal.safetensors in it"
    if not path.is_file():
        raise SslrobError(f"there is no universal move at {str(path)!r}", hint=hint)
    try:
        with safe_open(path, framework="pt") as file:
            found: Any = json.loads((file.metadata() or {}).get(KEY, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise SslrobError(f"{str(path)!r} is not a whole safetensors file: {str(error).splitlines()[0]}", hint=AGAIN) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise SslrobError(f"{str(path)!r} holds no universal move that this version of sslrob wrote", hint=hint)
    return found


def find(word: str, runs: Path) -> Path:
    """The file that a word means: its path, or a run's folder, name or 8 hex digits.

    Raises:
        SslrobError: no run, or more than one, is meant.
    """
    from sslrob.report import find as folder_of

    path = Path(word).expanduser()
    return (path if path.is_file() else folder_of(word, runs) / FILE).resolve()
