"""Every backbone of the collection and what it is pretrained with: `python -m sslrob_mini.pretrain NAME`.

The seven self-supervised methods share architecture, data, schedule, optimiser and the strength of their augmentations; DINO and
SwAV add the local views of their multi-crop.  What else differs is each method's own.  A variant is its method with one thing changed.
"""

from dataclasses import replace

from sslrob_mini.augment import Cropping, Placing, Recolouring
from sslrob_mini.pretrain.settings import (
    Architecture,
    BarlowTwins,
    Byol,
    Dino,
    MocoV3,
    Schedule,
    Settings,
    Simclr,
    Supervised,
    Swav,
    Vicreg,
    Views,
)

SCHEDULE = Schedule(steps=1000, learning_rate=2e-3, weight_decay=1e-4)
TWO = Views()
MULTI_CROP = Views(locals=4)

SIMCLR = Simclr(SCHEDULE, TWO)
DINO = Dino(SCHEDULE, MULTI_CROP)
SWAV = Swav(SCHEDULE, MULTI_CROP)

METHODS: dict[str, Settings] = {
    "barlow-twins": BarlowTwins(SCHEDULE, TWO),
    "byol": Byol(SCHEDULE, TWO),
    "dino": DINO,
    "moco-v3": MocoV3(SCHEDULE, TWO),
    "simclr": SIMCLR,
    "swav": SWAV,
    "vicreg": Vicreg(SCHEDULE, TWO),
    "supervised": Supervised(
        Schedule(steps=1500, learning_rate=3e-3, weight_decay=0.02),
        Views(
            placing=Placing(),
            full=Cropping(size=64, area=(0.6, 1.0), spread=0.2),
            fulls=1,
            colours=Recolouring(strength=0.5, grey=0.1, blur=0.2),
        ),
    ),
}


def _steps(settings: Settings, factor: float) -> Settings:
    return replace(settings, schedule=replace(settings.schedule, steps=round(settings.schedule.steps * factor)))


def _batch(settings: Settings, batch: int) -> Settings:
    """As many images in batches of another size, at a learning rate that follows its square root."""
    schedule, ratio = settings.schedule, batch / settings.schedule.batch
    changed = replace(
        schedule,
        batch=batch,
        steps=round(schedule.steps / ratio),
        warm_up=round(schedule.warm_up / ratio),
        every=round(schedule.every / ratio),
        learning_rate=schedule.learning_rate * ratio**0.5,
    )
    return replace(settings, schedule=changed)


def _seed(settings: Settings, seed: int) -> Settings:
    return replace(settings, schedule=replace(settings.schedule, seed=seed))


def _views(settings: Settings, **changes: object) -> Settings:
    return replace(settings, views=replace(settings.views, **changes))


WHITE_LIGHT = Recolouring(share=0.0, grey=0.0)  # blurs only

VARIANTS: dict[str, Settings] = {
    # training duration
    "simclr-quarter": _steps(SIMCLR, 0.25),
    "simclr-half": _steps(SIMCLR, 0.5),
    "simclr-double": _steps(SIMCLR, 2),
    # batch size
    "simclr-batch-64": _batch(SIMCLR, 64),
    "simclr-batch-1024": _batch(SIMCLR, 1024),
    # augmentations
    "simclr-no-colour": _views(SIMCLR, colours=WHITE_LIGHT),
    "simclr-crop-only": _views(SIMCLR, colours=replace(WHITE_LIGHT, blur=0.0)),
    "swav-no-multi-crop": _views(SWAV, locals=0),
    # architecture
    "simclr-narrow": replace(SIMCLR, architecture=Architecture(widths=(16, 32, 64, 128))),
    "dino-vit": replace(DINO, schedule=replace(SCHEDULE, learning_rate=1e-3, weight_decay=0.04), architecture=Architecture(use="mini-vit")),
    # seeds
    **{f"{name}-seed-{seed}": _seed(METHODS[name], seed) for name in ("simclr", "barlow-twins") for seed in (1, 2)},
}

ALL = {**METHODS, **VARIANTS}
