"""Continuations of a prompt, and what is explained of them: `task: generation`.

A continuation of T tokens is scored as a label set of its own: its beginnings of 1, 2, …, T tokens
are the labels. A host reads labels that begin one another in one run of the longest, so that it
returns the cumulated log-probabilities; their differences are those of the tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engine.context import MOST_TOKENS, Continuation, StepContext, Unit
from engine.data import example_key
from engine.errors import ExampleError
from engine.generations import GenerationAsk, Generations
from engine.labels import LabelSet, why_joined
from engine.not_a_number import failure_code
from engine.prompts import PromptTemplate
from engine.target import LOG_FLOOR
from engine.tokens import Tokenizer
from engine.types import FloatCL


def continued(
    context: StepContext, unit: Unit, tokenizer: Tokenizer, generations: Generations
) -> StepContext | GenerationAsk:
    """Return the context that scores the continuation of a unit's example, or the ask for it.

    Args:
        context: Of a pair whose task is generation.
        unit: Of one example.
        tokenizer: Of the pair.
        generations: What the host has answered.

    Raises:
        ExampleError: `empty_continuation`, `long_continuation`, `joined_continuation`: there is
            none that could be explained. `not_generated`, `not_a_number`: the host could not
            generate. `missing_field`, `prompt_too_long`.
    """
    task = context.generation
    assert task is not None
    [example] = unit.examples
    if task.given is not None:
        ids = _given(context.template, tokenizer, example.fields, task.given)
    else:
        key = example_key(example.fields)
        if (error := generations.error(key)) is not None:
            raise ExampleError(failure_code(error, "not_generated"), error)
        answer = generations.get(key)
        if answer is None:
            text = context.template.render(example.fields)
            [prompt] = tokenizer.encode_batch([text], context.template.add_special_tokens)
            return GenerationAsk(key, tuple(prompt), task.max_new_tokens)
        ids = answer.ids
        if not ids:
            raise ExampleError(
                "empty_continuation",
                "the model ends its text right after the prompt: there is no token to explain",
            )
    if len(ids) > MOST_TOKENS:
        raise ExampleError(
            "long_continuation",
            f"the continuation has {len(ids)} tokens, at most {MOST_TOKENS} can be explained",
        )
    texts = tuple(tokenizer.decode([token]) for token in ids)
    continuation = Continuation(ids, texts, tokenizer.decode(ids))
    beginnings = tuple(ids[: n + 1] for n in range(len(ids)))
    labels = LabelSet(texts, tuple(tokenizer.decode(b) for b in beginnings), beginnings)
    return replace(
        context,
        labels=labels,
        continuation=continuation,
        max_tokens=context.max_tokens - len(ids) + 1,
    )


def _given(
    template: PromptTemplate, tokenizer: Tokenizer, fields: Mapping[str, str], name: str
) -> tuple[int, ...]:
    """Return the tokens of a field's text where it stands, after the full prompt."""
    if name not in fields:
        raise ExampleError(
            "missing_field", f"the continuation is the field {name!r}, which the example lacks"
        )
    string = fields[name]
    if not string:
        raise ExampleError("empty_continuation", f"the field {name!r} is empty: nothing to explain")
    texts = [template.render(fields), template.complete(fields, string)]
    prompt, whole = tokenizer.encode_batch(texts, template.add_special_tokens)
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        why = why_joined(template, tokenizer, texts[0], string)
        raise ExampleError("joined_continuation", why)
    return tuple(whole[len(prompt) :])


def token_values(cumulated_CT: FloatCL) -> FloatCL:
    """Return the explained values [C, T + 1]: log p of each token, then of the whole.

    A token's log-probability is clipped at `LOG_FLOOR`, below which float32 knows little, so that
    all values are finite and the whole is the sum of its tokens.

    Args:
        cumulated_CT: Log-probabilities of the first 1, 2, …, T tokens [C, T].
    """
    with np.errstate(invalid="ignore"):  # −∞ − −∞: behind a token that can't be
        tokens = np.diff(cumulated_CT, axis=1, prepend=0.0)
    tokens = np.clip(np.nan_to_num(tokens, nan=LOG_FLOOR, neginf=LOG_FLOOR), LOG_FLOOR, 0.0)
    return np.concatenate([tokens, tokens.sum(axis=1, keepdims=True)], axis=1)


def token_probabilities(cumulated_CT: FloatCL) -> FloatCL:
    """Return p of each token, then the geometric mean of all of them [C, T + 1].

    The mean, one over the perplexity, stands for the whole in the deletion metrics: the product
    of many tokens' probabilities is next to 0 whatever is removed, the mean keeps to the scale of a
    token's, and texts of other lengths can be put beside one another.

    Args:
        cumulated_CT: As of `token_values`.
    """
    values = token_values(cumulated_CT)
    values[:, -1] /= cumulated_CT.shape[1]
    return np.exp(values)
