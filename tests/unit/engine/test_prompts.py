"""Templates: the place of a field is exact, and malformed ones are refused with their place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.errors import ConfigError, ExampleError
from engine.prompts import (
    Message,
    PromptTemplate,
    Slot,
    few_shot,
    from_chat,
    parse_template,
    slot_names,
)

NASTY = "{text} }} <|end|> {{0}} \r\n\u200f🙂"


def test_rendering_and_places() -> None:
    template = parse_template("Premise: {premise}\nClaim: {claim}\nTrue?")
    fields = {"premise": "It rains.", "claim": "It is wet.", "unused": "x"}
    assert template.variables == ("premise", "claim")
    assert template.render(fields) == "Premise: It rains.\nClaim: It is wet.\nTrue?"
    assert template.locate(fields) == {"premise": 9, "claim": 26}
    assert template.complete(fields, " yes") == template.render(fields) + " yes"


def test_user_text_stays_plain() -> None:
    template = parse_template("{{{text}}} and {other}")
    fields = {"text": NASTY, "other": NASTY}
    prompt = template.render(fields)
    assert prompt == "{" + NASTY + "} and " + NASTY
    for name, start in template.locate(fields).items():
        assert prompt[start : start + len(NASTY)] == fields[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Review: {text", "line 1, column 9: a single '{'"),
        ("A\nb } {text}", "line 2, column 3: a single '}'"),
        ("{text} {}", "line 1, column 8: {} is no field name"),
        ("{text!r}", "{text!r} is no field name"),
        ("{text} {0}", "{0} is no field name"),
        ("{txet}", "did you mean {text}?"),
        ("{zzz}", "the fields are ['label', 'text']"),
        ("Review:", "no slot"),
        ("{{text}}", "no slot"),
        ("{text} {text}", "more than once"),
    ],
)
def test_malformed_templates_name_their_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_template(text, known=["text", "label"])
    assert message in str(error.value)


def test_missing_field_is_the_examples_fault() -> None:
    template = parse_template("{text} {other}")
    for call in (template.render, template.locate):
        with pytest.raises(ExampleError, match="'other'") as error:
            call({"text": "a"})
        assert error.value.code == "missing_field"


def test_few_shot_is_the_same_renderer() -> None:
    template = parse_template("Review: {text}\nSentiment:")
    labels = {"bad": " negative", "good": " positive"}
    shots = [({"text": "I {love} it"}, "good"), ({"text": "Awful"}, "bad")]
    prompt = few_shot(template, shots, labels, "\n--\n")
    assert prompt.render({"text": "Fine"}) == (
        "Review: I {love} it\nSentiment: positive\n--\n"
        "Review: Awful\nSentiment: negative\n--\n"
        "Review: Fine\nSentiment:"
    )
    assert prompt.render({"text": "Fine"})[prompt.locate({"text": "Fine"})["text"] :][:4] == "Fine"
    with pytest.raises(ConfigError, match="few-shot example 1 has the label 'so'"):
        few_shot(template, [({"text": "x"}, "so")], labels)


def chat(messages: list[Message]) -> str:
    """A chat template that strips contents, as many do."""
    turns = [f"<|{m['role']}|>{m['content'].strip()}<|end|>\n" for m in messages]
    return "<s>" + "".join(turns) + "<|assistant|>"


def test_chat_template_is_split_at_the_fields() -> None:
    messages = [
        {"role": "system", "content": "Answer {{yes}} or no."},
        {"role": "user", "content": " {premise} | {claim} "},
    ]
    template = from_chat(messages, chat)
    assert template.pieces == (
        "<s><|system|>Answer {yes} or no.<|end|>\n<|user|>",
        Slot("premise"),
        " | ",
        Slot("claim"),
        "<|end|>\n<|assistant|>",
    )
    assert not template.add_special_tokens
    # a field keeps its own white space, though the chat template strips contents
    assert "<|user|> a |  b <|end|>" in template.render({"premise": " a", "claim": " b "})


@pytest.mark.parametrize(
    ("render", "message"),
    [
        (lambda m: chat(m).upper(), "drops or changes"),
        (lambda m: "nothing", "drops or changes"),
        (lambda m: chat(m) + chat(m), "repeats"),
    ],
)
def test_chat_templates_that_change_a_field_are_refused(
    render: Callable[[list[Message]], str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_chat([{"role": "user", "content": "{text}"}], render)


def test_chat_needs_each_field_once() -> None:
    with pytest.raises(ConfigError, match="no slot"):
        from_chat([{"role": "user", "content": "hello"}], chat)
    with pytest.raises(ConfigError, match="more than once"):
        from_chat([{"role": r, "content": "{text}"} for r in ("user", "assistant")], chat)


def test_templates_are_values() -> None:
    assert parse_template("a {text}") == PromptTemplate(("a ", Slot("text")))
    assert hash(parse_template("a {text}")) == hash(PromptTemplate(("a ", Slot("text"))))


def test_slots_of_a_text_are_its_fields() -> None:
    assert slot_names("Is {{this}} {premise}, {hypothesis}?") == {"premise", "hypothesis"}
    assert slot_names("none") == frozenset()
