"""Object detection for sslrob, through mmdet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sslrob.hookspecs import hookimpl

if TYPE_CHECKING:
    from sslrob.hookspecs import Register
    from sslrob.zoo import Victim

SCHEME = "mmdet:"
HINT = "give a config of mmdet 3: mmdet:FILE.py or mmdet:NAME"


@hookimpl
def register_tasks(register: Register) -> None:
    register("detection", "sslrob_mmdet.task:Detection")


@hookimpl
def resolve_reference(kind: str, text: str) -> Victim | None:
    """`mmdet:CONFIG`: a whole detector, from a config file or by the name of a config shipped with mmdet."""
    if kind != "victim" or not text.startswith(SCHEME):
        return None
    from sslrob.zoo import Victim

    return Victim(task="detection", reference=text)
