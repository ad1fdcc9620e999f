"""What pretraining can be told: one class of settings for each method.  `table.py` has the values."""

from dataclasses import dataclass, field

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
class Architecture:
    """The registered backbone that is trained, and its constructor's arguments."""

    use: str = "mini-resnet"
    widths: tuple[int, ...] = ()  # of a ResNet's stages; empty: its own


@dataclass(frozen=True)
class Views:
    """Full views and, for multi-crop, local ones of each scene, all coloured alike at random."""

    placing: Placing = field(default_factory=lambda: Placing(scale=(0.55, 1.0)))
    full: Cropping = field(default_factory=lambda: Cropping(size=48, area=(0.4, 1.0), spread=0.3))
    local: Cropping = field(default_factory=lambda: Cropping(size=24, area=(0.12, 0.35), spread=0.5))
    fulls: int = 2
    locals: int = 0
    colours: Recolouring = field(default_factory=Recolouring)


@dataclass(frozen=True)
class Settings:
    """What every method has."""

    schedule: Schedule
    views: Views
    architecture: Architecture = field(default_factory=Architecture)


@dataclass(frozen=True)
class Supervised(Settings):
    """Cross-entropy of the items' classes, smoothed, on one full view of a scene."""

    smoothing: float = 0.1


@dataclass(frozen=True)
class Simclr(Settings):
    """SimCLR (Chen et al. 2020): the two views of a scene against all other views of the batch."""

    hidden: int = 256
    embedding: int = 64
    temperature: float = 0.2


@dataclass(frozen=True)
class BarlowTwins(Settings):
    """Barlow Twins (Zbontar et al. 2021): the correlation of two views' embeddings is driven to the identity."""

    hidden: int = 512
    embedding: int = 512
    off_diagonal: float = 5e-3  # the paper's lambda


@dataclass(frozen=True)
class Vicreg(Settings):
    """VICReg (Bardes et al. 2022): views agree, each dimension keeps its variance, dimensions do not covary."""

    hidden: int = 512
    embedding: int = 512
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0


@dataclass(frozen=True)
class Momentum(Settings):
    """What the methods with a momentum encoder share: it moves by 1 − momentum a step, which falls to 0 in half a cosine."""

    momentum: float = 0.99


@dataclass(frozen=True)
class Byol(Momentum):
    """BYOL (Grill et al. 2020): a predictor on one view foretells the momentum encoder's embedding of the other; no negatives."""

    hidden: int = 512
    embedding: int = 128


@dataclass(frozen=True)
class MocoV3(Momentum):
    """MoCo v3 (Chen et al. 2021): as BYOL, but against the batch's other momentum embeddings; no queue."""

    hidden: int = 512
    embedding: int = 128
    temperature: float = 0.2


@dataclass(frozen=True)
class Dino(Momentum):
    """DINO (Caron et al. 2021): every view foretells the centred, sharpened softmax of the momentum encoder on the full ones."""

    hidden: int = 256
    bottleneck: int = 64
    outputs: int = 1024
    frozen: int = 100  # steps before the last layer learns
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9


@dataclass(frozen=True)
class Swav(Settings):
    """SwAV (Caron et al. 2020): views of a scene predict each other's Sinkhorn assignment to prototypes."""

    hidden: int = 256
    embedding: int = 64
    prototypes: int = 100
    frozen: int = 100  # steps before the prototypes learn
    temperature: float = 0.1
    sinkhorn_epsilon: float = 0.03
    sinkhorn_iterations: int = 3
