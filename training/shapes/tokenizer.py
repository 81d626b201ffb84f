"""A small T5-style tokenizer, trained on the captions; any other text falls back to bytes."""

from __future__ import annotations

import random

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from shapes.scene import all_scenes, paraphrase

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
VOCABULARY = 448
MAX_TOKENS = 120  # what LattePipeline pads to


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same corpus and so the same vocabulary on every call."""
    rng = random.Random(0)
    corpus = [paraphrase(scene, rng) for scene in all_scenes() for _ in range(4)]
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, EOS, UNKNOWN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, core.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
    )
