"""A colour per checkpoint, for a light and a dark page."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

from stages.common.config.params import Params


class Colour(NamedTuple):
    light: str
    dark: str


_WARM = (
    *(Colour("#d4680c", "#ff9b4a"), Colour("#b0308c", "#ee82cf"), Colour("#8a6d00", "#dcbb3c")),
    *(Colour("#c0392b", "#ff7a6b"), Colour("#7a4a2b", "#c99a78"), Colour("#6b7a12", "#b9c94f")),
)


def palette(params: Params, names: Sequence[str]) -> dict[str, Colour]:
    """A colour per checkpoint: grey for pretraining, a ramp of blues along the curriculum, warm colours for the other
    phases, green for external checkpoints. Checkpoints of earlier epochs have the colour of the last one."""
    sft = params.sft
    curricula = {link for curriculum, _ in sft.comparisons for link in sft.chain(curriculum)} or set(sft.phases)
    cool = sorted((name for name in sft.phases if name in curricula), key=lambda name: len(sft.chain(name)))
    colours = {"pretrain": Colour("#858b96", "#8b919c")}
    for index, name in enumerate(cool):
        share = index / (len(cool) - 1) if len(cool) > 1 else 1.0
        colours[f"sft-{name}"] = Colour(
            _hex(0.49 + 0.17 * share, 0.55 - 0.20 * share, 0.62), _hex(0.64 - 0.12 * share, 0.62 + 0.14 * share, 0.75)
        )
    for index, name in enumerate(name for name in sft.phases if name not in curricula):
        colours[f"sft-{name}"] = _WARM[index % len(_WARM)]
    for name in params.fetch.models:
        colours[name] = Colour("#2f8f4e", "#5fc983")
    return {name: colours[name.split("/")[0]] for name in names}


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))


def variable(names: Sequence[str], name: str) -> str:
    """The CSS variable that holds a checkpoint's colour."""
    return f"var(--c{names.index(name)})"
