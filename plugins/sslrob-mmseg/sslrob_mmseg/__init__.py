"""Semantic segmentation for sslrob, through mmsegmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslrob import hookimpl

if TYPE_CHECKING:
    from sslrob.hookspecs import Register
    from sslrob.zoo import Victim


@hookimpl
def register_tasks(register: Register) -> None:
    register("segmentation", "sslrob_mmseg.task:Segmentation")


@hookimpl
def resolve_reference(kind: str, text: str) -> Victim | None:
    """`mmseg:CONFIG`: a whole segmentor, from a config file or by the name of a config shipped with mmseg."""
    if kind != "victim" or not text.startswith("mmseg:"):
        return None
    from sslrob.zoo import Victim

    return Victim(task="segmentation", reference=text)
