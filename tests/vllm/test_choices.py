"""Choices in both orders: vLLM and transformers choose alike."""

from __future__ import annotations

import itertools

from actors.host import Host
from engine.choices import Choice, Question, choice_frame, choose
from engine.prompts import parse_template
from engine.tokens import Tokenizer

THINGS = (
    "a quiet village", "a busy harbour", "an old library", "a mountain hut", "a film festival",
    "a night train", "a rose garden", "a chess club", "a desert camp", "a ski slope",
    "a jazz bar", "a science fair", "a farmers' market", "a glass tower", "a beach house",
    "a language course", "a cooking class", "a boat trip", "a castle ruin", "a theme park",
    "a poetry reading",
)  # fmt: skip
PAIRS = 200


def test_200_pairs(vllm_host: Host, plain_host: Host, tokenizer: Tokenizer) -> None:
    template = parse_template(
        "Where would you rather spend a day?\nA: {option_a}\nB: {option_b}\nAnswer:"
    )
    frame = choice_frame(template, tokenizer)
    pairs = list(itertools.combinations(THINGS, 2))[:PAIRS]
    assert len(pairs) == PAIRS
    questions = [Question({}, pair) for pair in pairs]
    ours = choose(questions, frame, tokenizer, plain_host.score)
    theirs = choose(questions, frame, tokenizer, vllm_host.score)
    same = apart = 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert isinstance(a, Choice)
        assert isinstance(b, Choice)
        same += a.chosen == b.chosen
        apart = max(apart, abs(a.in_order - b.in_order), abs(a.swapped - b.swapped))
    assert same >= 0.99 * PAIRS
    assert apart < 2e-3  # of two log-probabilities
    firsts = [choice.chosen == 0 for choice in ours if isinstance(choice, Choice)]
    assert 0.02 * PAIRS < sum(firsts) < 0.98 * PAIRS, "the options matter, not their place alone"
