"""Where a text may be cut without changing its tokens.

A tokenizer may be applied to the parts of a text instead of the whole where nothing in it looks
across the cut. Cuts are made in front of a run of plain spaces that stands between two visible
characters, as between two words: `good| film`. There

- pre-tokenizers end a piece: byte-level ones, Metaspace and splits at white space by what they are,
  splits by a regular expression if they are seen to on all kinds of characters; an expression that
  looks back or at the ends of its input is not trusted;
- or no token of a BPE's vocabulary holds a space after another character, so that no merge reaches
  across: both sides are merged as if they were alone;
- normalizers work on a character or a grapheme at a time, or at the very ends of the text;
- no added token reaches across or touches: next to one a text begins or ends for the tokenizer.

A tokenizer of which this can't be shown, or which fails on one of some thousand probes, has no
cuts: its texts are tokenized whole.
"""

from __future__ import annotations

import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tokenizers

from engine.tokens import ByteTokenizer, JsonTokenizer, Tokenizer

ANCHOR = "a"
"""What a part that doesn't begin the text is tokenized after: some tokenizers add a space in front
of a text."""

_CANDIDATE = re.compile(r"(?<=\S)(?= +\S)")
_SPACES = " ▁Ġ"  # as texts, sentence pieces and byte-level vocabularies write them
_LOCAL_NORMALIZERS = frozenset(
    [
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Lowercase",
        "StripAccents",
        "Prepend",
        "Strip",
        "BertNormalizer",
        "ByteLevel",
    ]
)
_LOCAL_PRE_TOKENIZERS = frozenset(
    [
        "ByteLevel",
        "Metaspace",
        "Digits",
        "Punctuation",
        "Whitespace",
        "WhitespaceSplit",
        "BertPreTokenizer",
        "CharDelimiterSplit",
    ]
)
_SPLIT_AT_SPACES = frozenset(["Whitespace", "WhitespaceSplit", "BertPreTokenizer"])
_LOOKS_BACK = re.compile(r"\(\?<[=!]|\\[bBAGKzZ]|(?<![\[\\])\^|(?<!\\)\$")
# one or more of every category of visible characters, and those that tokenizers name
_PROBES = "aZé中ا7²Ⅳ.,:!'’\"()-–_/%#@*<>]{|$€+=^`★🙂"
_BEFORE = ("", "don'", "q ", "12")
_AFTER = "b, 1's"


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where the texts of one tokenizer may be cut, and what its parts are tokenized with.

    Attributes:
        anchor: Ids of `ANCHOR`.
        prefix: Ids the tokenizer adds in front of a text.
        suffix: Ids the tokenizer adds after a text.
        never_after: Characters after which there is no cut: ends of added tokens.
        never_before: Characters before which, and the spaces before them, there is no cut: begins
            of added tokens.
    """

    anchor: tuple[int, ...]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    never_after: frozenset[str] = frozenset()
    never_before: frozenset[str] = frozenset()

    def after(self, character: str) -> bool:
        """Whether there may be a cut after a character."""
        return _visible(character) and character not in self.never_after

    def before(self, character: str) -> bool:
        """Whether there may be a cut before spaces and a character."""
        return _visible(character) and character not in self.never_before

    def find(self, text: str) -> Iterator[int]:
        """Yield the places where `text` may be cut, in order."""
        for match in _CANDIDATE.finditer(text):
            place = match.start()
            if self.after(text[place - 1]):
                right = place + 1
                while text[right] == " ":
                    right += 1
                if self.before(text[right]):
                    yield place


def cuts_of(tokenizer: Tokenizer, add_special_tokens: bool) -> Cuts | None:
    """Return where texts may be cut, or None if that can't be shown."""
    if isinstance(tokenizer, ByteTokenizer):
        return Cuts(tuple(ANCHOR.encode()), (), ())
    if isinstance(tokenizer, JsonTokenizer):
        return _cuts_of_json(tokenizer, add_special_tokens)
    return None


@lru_cache(maxsize=8)
def _cuts_of_json(tokenizer: JsonTokenizer, add_special_tokens: bool) -> Cuts | None:
    content = json.loads(tokenizer.spec)
    if not _is_local(content):
        return None
    bare, framed = (tokenizer.encode_batch([ANCHOR], special)[0] for special in (False, True))
    places = [i for i in range(len(framed)) if framed[i : i + len(bare)] == bare]
    if len(places) != 1:
        return None
    prefix = framed[: places[0]] if add_special_tokens else []
    suffix = framed[places[0] + len(bare) :] if add_special_tokens else []
    added = [token["content"] for token in content.get("added_tokens", []) if token["content"]]
    cuts = Cuts(
        tuple(bare),
        tuple(prefix),
        tuple(suffix),
        # a normalizer may change the case of what is compared with them
        frozenset(c for text in added for c in (text[-1], text[-1].lower(), text[-1].upper())),
        frozenset(c for text in added for c in (text[0], text[0].lower(), text[0].upper())),
    )
    sound = ANCHOR not in cuts.never_after and _withstands_probes(tokenizer, cuts)
    return cuts if sound else None


@lru_cache(maxsize=4096)
def _visible(character: str) -> bool:
    """Whether it is a letter, a number, punctuation or a symbol, and stands for itself."""
    return unicodedata.category(character)[0] in "LNPS" and character not in _SPACES


def _is_local(content: Mapping[str, Any]) -> bool:
    """Whether nothing in a `tokenizer.json` looks across a cut."""
    steps = list(_steps(content.get("pre_tokenizer"), "pretokenizers"))
    return (
        all(map(_normalizes_locally, _steps(content.get("normalizer"), "normalizers")))
        and all(map(_splits_locally, steps))
        and not any(_reaches_across(token["content"]) for token in content.get("added_tokens", ()))
        and (_always_cuts(content, steps) or _never_merges_across(content))
    )


def _steps(step: Mapping[str, Any] | None, inner: str) -> Iterator[Mapping[str, Any]]:
    if step is None:
        return
    if step["type"] == "Sequence":
        for part in step[inner]:
            yield from _steps(part, inner)
    else:
        yield step


def _normalizes_locally(step: Mapping[str, Any]) -> bool:
    if step["type"] != "Replace":
        return step["type"] in _LOCAL_NORMALIZERS
    pattern = step["pattern"]
    if "String" in pattern:
        return bool(pattern["String"]) and not _reaches_across(pattern["String"])
    return pattern.get("Regex") in (" {2,}", " +")


def _splits_locally(step: Mapping[str, Any]) -> bool:
    if step["type"] != "Split":
        return step["type"] in _LOCAL_PRE_TOKENIZERS
    pattern = step["pattern"]
    if "String" in pattern:
        return not _reaches_across(pattern["String"])
    # `\s+$` can only match behind the last visible character
    return _LOOKS_BACK.search(pattern["Regex"].replace(r"\s+$", "")) is None


def _reaches_across(text: str) -> bool:
    """Whether a space stands in it behind another character."""
    return any(a not in _SPACES and b in _SPACES for a, b in itertools.pairwise(text))


def _always_cuts(content: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the pre-tokenizer ends a piece at every cut."""
    for step in steps:
        kind = step["type"]
        if kind in _SPLIT_AT_SPACES or (kind == "ByteLevel" and step.get("use_regex", True)):
            return True
        if kind == "Metaspace" and step.get("split", True):
            return True
    if any(step["type"] == "Split" and "Regex" in step["pattern"] for step in steps):
        own = json.dumps({**_BARE, "pre_tokenizer": content["pre_tokenizer"]})
        pre_tokenizer = tokenizers.Tokenizer.from_str(own).pre_tokenizer
        return all(
            any(start == place for _, (start, _) in pre_tokenizer.pre_tokenize_str(left + right))
            for left, right in _probes()
            for place in [len(left)]
        )
    return False


_BARE: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"},
}


def _never_merges_across(content: Mapping[str, Any]) -> bool:
    """Whether the model is a BPE without a token that reaches across a cut.

    Unigram models weigh the whole text, so that roundings on one side can tip ties on the other.
    """
    model = content["model"]
    odd = ("dropout", "ignore_merges", "continuing_subword_prefix", "end_of_word_suffix")
    if model["type"] != "BPE" or any(model.get(name) for name in odd):
        return False
    vocabulary = model["vocab"]
    # a space that isn't known could be fused with what stands before it
    before_model = json.dumps([content.get("normalizer"), content.get("pre_tokenizer")])
    space = "▁" if "\\u2581" in before_model else "Ġ" if "ByteLevel" in before_model else " "
    return space in vocabulary and not any(map(_reaches_across, vocabulary))


def _probes() -> Iterator[tuple[str, str]]:
    """Yield the left and the right part of texts that are to be cut."""
    for before, left in itertools.product(_BEFORE, _PROBES):
        for index, right in enumerate(_PROBES):
            yield before + left, " " * (1 + index % 3) + right + _AFTER


def _withstands_probes(tokenizer: Tokenizer, cuts: Cuts) -> bool:
    pairs = [(a, b) for a, b in _probes() if len(a) in cuts.find(a + b)]
    lefts, rights = (list(dict.fromkeys(side)) for side in zip(*pairs, strict=True))
    whole = tokenizer.encode_batch([a + b for a, b in pairs], False)
    left_ids = dict(zip(lefts, tokenizer.encode_batch(lefts, False), strict=True))
    anchored = tokenizer.encode_batch([ANCHOR + right for right in rights], False)
    right_ids = dict(zip(rights, anchored, strict=True))
    skip = len(cuts.anchor)
    return all(tuple(ids[:skip]) == cuts.anchor for ids in anchored) and all(
        ids == left_ids[a] + right_ids[b][skip:] for (a, b), ids in zip(pairs, whole, strict=True)
    )
