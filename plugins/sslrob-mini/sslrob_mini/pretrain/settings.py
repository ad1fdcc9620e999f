"""All settings of pretraining, in one table: what `python -m sslrob_mini.pretrain METHOD` runs with."""

from dataclasses import dataclass

from sslrob_mini.augment import Cropping, Placing, Recolouring


@dataclass(frozen=True)
class Schedule:
    """AdamW with a linear warm-up and a cosine decay to zero."""

    steps: int
    learning_rate: float
    weight_decay: float
    seed: int = 0
    batch: int = 256
    warm_up: int = 100
    every: int = 100  # steps between two lines of the log, each with a checkpoint


@dataclass(frozen=True)
class Supervised:
    """Cross-entropy of the items' classes, smoothed, on one view of a scene."""

    schedule: Schedule
    placing: Placing
    view: Cropping
    colours: Recolouring
    smoothing: float


@dataclass(frozen=True)
class Swav:
    """SwAV (Caron et al. 2020): views of a scene predict each other's Sinkhorn assignment to prototypes."""

    schedule: Schedule
    placing: Placing
    full: Cropping  # of the two views whose assignments are predicted
    local: Cropping  # of the others
    locals: int
    colours: Recolouring
    hidden: int  # units of the projection head's hidden layer
    embedding: int
    prototypes: int
    frozen: int  # steps before the prototypes learn
    temperature: float
    sinkhorn_epsilon: float
    sinkhorn_iterations: int


SUPERVISED = Supervised(
    schedule=Schedule(steps=1500, learning_rate=3e-3, weight_decay=0.02),
    placing=Placing(),
    view=Cropping(size=64, area=(0.6, 1.0), spread=0.2),
    colours=Recolouring(strength=0.5, grey=0.1, blur=0.2),
    smoothing=0.1,
)

SWAV = Swav(
    schedule=Schedule(steps=1000, learning_rate=2e-3, weight_decay=1e-4),
    placing=Placing(scale=(0.55, 1.0)),
    full=Cropping(size=48, area=(0.4, 1.0), spread=0.3),
    local=Cropping(size=24, area=(0.12, 0.35), spread=0.5),
    locals=4,
    colours=Recolouring(),
    hidden=256,
    embedding=64,
    prototypes=100,
    frozen=100,
    temperature=0.1,
    sinkhorn_epsilon=0.03,
    sinkhorn_iterations=3,
)
