"""Stage convert@model: a published MiniMind-V checkpoint in our format: `python -m stages.convert NAME`.

in: data/{fetched,tokenizer,vision}; params fetch.models. out: checkpoints/<name>
"""

from __future__ import annotations

import sys

from model.errors import ConversionError
from model.minimind.checkpoint import load_minimind, set_special_tokens, vision_language_model
from stages.common.config.params import load_params
from stages.common.core.errors import InputError
from stages.common.core.files import require_model
from stages.common.core.paths import VISION
from stages.common.core.stage import run_stage
from stages.common.data.chat import IMAGE, load_tokenizer
from stages.common.data.fetched import fetched_file
from stages.common.training.checkpoints import checkpoint_path, save_checkpoint


def main() -> None:
    params = load_params()
    names = list(params.fetch.models)
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        raise InputError(f"usage: python -m stages.convert NAME, one of fetch.models: {', '.join(names) or 'none'}")
    name = sys.argv[1]
    require_model(VISION, "vision")
    tokenizer = load_tokenizer()
    try:
        state = load_minimind(fetched_file("models", name))
        model = vision_language_model(state, VISION, tokenizer.convert_tokens_to_ids(IMAGE))
        set_special_tokens(model, tokenizer)
    except ConversionError as error:
        raise InputError(f"fetch.models.{name}: {error}") from None
    save_checkpoint(model, tokenizer, checkpoint_path(name))
    print(f"{name}: converted, projector {model.config.projector}")


if __name__ == "__main__":
    run_stage(main)
