"""A whole classifier out of one file: a backbone, and the linear layer that was trained with it or on it."""

from __future__ import annotations

from sslrob import assemble
from sslrob import weights as checkpoints
from sslrob.builtin.classification import LinearClassifier
from sslrob.task import Victim
from sslrob.zoo import Backbone, Settings, Weights
from sslrob_backbones.references.files import USE


def build(reference: str, weights: Weights | None, settings: Settings) -> Victim:
    """The classifier with its weights, as `files.victim` describes it.

    Raises:
        SslrobError: the file does not fit, or holds no head.
    """
    if weights is None:
        raise ValueError(f"{reference!r} is nothing without its weights")
    own = {name: value for name, value in settings.items() if name != USE}
    record = Backbone(use=str(settings[USE]), settings=own, weights=weights, license="")
    body = assemble.backbone(record, name=reference)
    head = checkpoints.read(weights, "head")
    victim = LinearClassifier(body, len(head["head.weight"]))
    checkpoints.load_head(victim, head, what=f"the head of {reference!r}")
    return victim
