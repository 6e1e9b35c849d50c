"""How well stage language's decoder finds things by their names: ``python -m benchmarks.look_up``, once it has run.

Every yes/no question of the validation scenes is asked by itself, with patch texts in place of the picture, noisy as
in training. An answer is right where, of the first tokens of yes and no, the right one is more likely.
"""

from __future__ import annotations

import random
from collections import Counter

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from model.vlm.attention import use_packed_attention
from model.vlm.modeling import use_target_positions
from stages.common.config.params import Params, load_params
from stages.common.core.paths import LANGUAGE
from stages.common.data.chat import IMAGE, Encoder, load_tokenizer, with_image
from stages.common.data.packing import PackCollate
from stages.common.data.shards import read_rows
from stages.common.world.scene import Scene
from stages.common.world.vocabulary import KINDS
from stages.language import PatchTextCollate, PatchTextDataset, hidden_states, patch_texts, yes_no_ids, yes_no_positions

BATCH = 64  # questions


def questions(params: Params, encoder: Encoder) -> tuple[PatchTextDataset, list[tuple[str, str]]]:
    """A sample for each question, and its task and right answer."""
    grid = params.data.image_size // params.vision.patch_size
    samples, patches, kinds = [], [], []
    kinds_drawn = tuple(KINDS)[: params.data.kinds]
    for number, row in enumerate(read_rows("validation", ["scene", "texts"])):
        rng = random.Random(f"{params.seed}/look-up/{number}")
        scene = Scene.from_json(row["scene"])
        for text in row["texts"]:
            if text["expected"] in ("yes", "no"):
                samples.append(([number], *encoder.dialogue([(with_image(text["question"]), text["answer"])])))
                patches.append(patch_texts(scene, grid, params.language.patch_noise, rng, kinds_drawn))
                kinds.append((text["task"], text["expected"]))
    return PatchTextDataset(samples, patches, encoder.token_id(IMAGE)), kinds


@torch.inference_mode()
def answers(
    model: LlamaForCausalLM, dataset: PatchTextDataset, collate: PackCollate, encoder: Encoder, noise: float
) -> list[bool]:
    """Whether each question is answered correctly."""
    yes_no_tokens, image_id = yes_no_ids(encoder), encoder.token_id(IMAGE)
    right: list[bool] = []
    for start in tqdm(range(0, len(dataset), BATCH), unit="batch"):
        batch = collate([dataset[number] for number in range(start, min(start + BATCH, len(dataset)))])
        asked = yes_no_positions(batch["labels"], yes_no_tokens)[:, 1:]
        logits = model.lm_head(hidden_states(model, batch, image_id, noise, asked[0].nonzero().squeeze(1)))
        right += (yes_no_tokens[logits[:, yes_no_tokens].argmax(-1)] == batch["labels"][:, 1:][asked]).tolist()
    return right


def main() -> None:
    params, tokenizer = load_params(), load_tokenizer()
    encoder = Encoder(tokenizer)
    torch.manual_seed(params.seed)
    model = LlamaForCausalLM.from_pretrained(LANGUAGE, local_files_only=True).eval()
    use_packed_attention(model)
    use_target_positions(model.model)
    dataset, kinds = questions(params, encoder)
    collate = PatchTextCollate(tokenizer.pad_token_id, None, encoder)
    right = answers(model, dataset, collate, encoder, params.language.noise)
    asked, known = Counter(kinds), Counter(kind for kind, ok in zip(kinds, right, strict=True) if ok)
    for kind in sorted(asked):
        print(f"{' '.join(kind):16} {known[kind] / asked[kind]:.3f} of {asked[kind]}")
    print(f"{'all':16} {sum(right) / len(right):.3f} of {len(right)}")


if __name__ == "__main__":
    main()
