"""The tokens of masked prompts, put together from parts that many coalitions share.

The text between two kept spans, with all that was between them removed, depends on these two alone.
Where it holds a place at which the tokenizer may be cut (`engine.cuts`), the prompt is cut there;
where it holds none, its two spans are one part. So every prompt is a sequence of parts, each part
is tokenized once, and the sequences of any number of coalitions are gathered with array operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engine.cuts import ANCHOR, Cuts
from engine.ragged import Ragged, concatenate
from engine.tokens import Tokenizer
from engine.types import BoolCF

Ints = npt.NDArray[np.int64]

_EDGE = 0
"""Number of the empty text that stands before the begin and after the end of a prompt."""


class Seams:
    """Assembles masked prompts of one example.

    The nodes of a prompt are its begin (0), its N spans in order (1..N) and its end (N + 1).

    Args:
        tokenizer: Of the model.
        cuts: Of the tokenizer.
        spans: Text of each span [N].
        gap: The text between two nodes when all between them is removed.
        plain: For each pair of neighbouring nodes, whether a single space is between them that
            stays one whatever is removed beside it [N + 1].
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        cuts: Cuts,
        spans: Sequence[str],
        gap: Callable[[int, int], str],
        plain: npt.NDArray[np.bool_],
    ) -> None:
        self._tokenizer = tokenizer
        self._cuts = cuts
        self._texts = ["", *spans, ""]
        self._gap = gap
        self._n_nodes = len(self._texts)
        # the neighbours that aren't plain: at or after a node, and before one
        rough = np.where(plain, -1, np.arange(len(plain)))
        self._last_rough = np.maximum.accumulate(np.concatenate([[-1], rough]))
        rough[plain] = len(plain)
        self._next_rough = np.minimum.accumulate(np.append(rough, len(plain))[::-1])[::-1]
        # by left node × nodes + right node, the kind of the gap between them; 0 is what lies
        # between the end of one prompt and the begin of the next
        self._kind = np.full(self._n_nodes**2, -1, dtype=np.int64)
        self._kind[(self._n_nodes - 1) * self._n_nodes] = 0
        self._known: dict[tuple[int, ...], int] = {}
        self._is_cut = np.ones(1, dtype=bool)
        self._head, self._tail = np.zeros((2, 1), dtype=np.int64)
        self._heads: dict[str | None, int] = {None: _EDGE}
        self._tails: dict[str | None, int] = {None: _EDGE}
        self._uncut: dict[int, str] = {}
        self._part: dict[tuple[str, bool, bool], int] = {}
        self._ids = Ragged.of([])

    def assemble(self, kept: BoolCF) -> Ragged | None:
        """Return the tokens of each prompt [C], or None where a part can't be told from its anchor.

        Args:
            kept: Which spans each prompt keeps [C, N].
        """
        framed = np.ones((len(kept), self._n_nodes), dtype=bool)
        framed[:, 1:-1] = kept
        node = np.nonzero(framed)[1]
        kind = self._kinds(node[:-1] * self._n_nodes + node[1:])
        cut = self._is_cut[kind]
        # a run of nodes without a cut between them is a part
        first = np.concatenate([[0], np.flatnonzero(cut) + 1])
        before = np.concatenate([[0], kind[cut]])
        after = np.concatenate([kind[cut], [0]])
        lengths = np.diff(first, append=len(node))
        label, bound = _renumber(self._tail[before] * self._n_nodes + node[first])
        for step in range(1, int(lengths.max())):
            longer = lengths > step
            further = label[longer] * self._n_nodes + node[first[longer] + step]
            extended, more = _renumber(further)
            label[longer] = bound + extended
            bound += more
        label, count = _renumber(label * len(self._heads) + self._head[after])
        example = np.empty(count, dtype=np.int64)
        example[label] = np.arange(len(label))
        number = self._parts(
            [
                (node[first[i] : first[i] + lengths[i]].tolist(), int(before[i]), int(after[i]))
                for i in example.tolist()
            ]
        )
        if number is None:
            return None
        made = self._ids.take(number[label])
        begins = np.append(np.flatnonzero(node[first] == 0), len(first))
        return Ragged(made.flat, made.offsets[begins])

    def _kinds(self, codes: Ints) -> Ints:
        """Return the kind of gap of each pair of nodes, and look at those that are new."""
        kinds = self._kind[codes]
        if (kinds < 0).any():
            self._learn(np.flatnonzero(np.bincount(codes[kinds < 0])))
            kinds = self._kind[codes]
        return kinds

    def _learn(self, codes: Ints) -> None:
        """Find the kinds of new pairs of nodes.

        Removing one or more words between plain neighbours leaves the space that was there, so
        that a gap depends on its neighbours that aren't plain: on the first and the last of them,
        and on whether more is removed on either side. Few gaps are looked at one by one.
        """
        left, right = np.divmod(codes, self._n_nodes)
        first, last = self._next_rough[left], self._last_rough[right]
        only_plain = first >= right
        first[only_plain] = last[only_plain] = -1
        more_left, more_right = left < first, right > last + 1
        more_left[only_plain] = more_right[only_plain] = False
        features = np.stack([first, last, more_left, more_right], axis=1).tolist()
        cuts: list[bool] = []
        heads: list[int] = []
        tails: list[int] = []
        for code, a, b, feature in zip(codes, left.tolist(), right.tolist(), features, strict=True):
            kind = self._known.setdefault(tuple(feature), len(self._known) + 1)
            self._kind[code] = kind
            if kind < len(self._is_cut) + len(cuts):
                continue
            gap = self._gap(a, b)
            place = self._place(a, b, gap)
            cuts.append(place is not None)
            if place is None:
                self._uncut[kind] = gap
                place = 0
                gap = ""
            heads.append(self._heads.setdefault(gap[:place], len(self._heads)))
            tails.append(self._tails.setdefault(gap[place:], len(self._tails)))
        self._is_cut = np.concatenate([self._is_cut, np.array(cuts, dtype=bool)])
        self._head = np.concatenate([self._head, np.array(heads, dtype=np.int64)])
        self._tail = np.concatenate([self._tail, np.array(tails, dtype=np.int64)])

    def _place(self, left: int, right: int, gap: str) -> int | None:
        """Return where in a gap to cut: near the spans, so that parts without them are shared."""
        before, after = self._texts[left][-1:], self._texts[right][:1]
        places = self._cuts.find(before + gap + after)
        place = max(places, default=None) if left == 0 else next(places, None)
        return None if place is None else place - len(before)

    def _parts(self, runs: Sequence[tuple[list[int], int, int]]) -> Ints | None:
        """Return the number of each part: its nodes, and the kinds of gap before and after it."""
        heads, tails = list(self._heads), list(self._tails)
        numbers = []
        new: list[tuple[str, bool, bool]] = []
        for nodes, before, after in runs:
            texts = [tails[self._tail[before]] or "", self._texts[nodes[0]]]
            for left, right in itertools.pairwise(nodes):
                kind = int(self._kind[left * self._n_nodes + right])
                texts += [self._uncut[kind], self._texts[right]]
            texts.append(heads[self._head[after]] or "")
            key = ("".join(texts), nodes[0] == 0, nodes[-1] == self._n_nodes - 1)
            if key not in self._part:
                self._part[key] = len(self._part)
                new.append(key)
            numbers.append(self._part[key])
        if new and not self._tokenize(new):
            return None
        return np.array(numbers, dtype=np.int64)

    def _tokenize(self, parts: Sequence[tuple[str, bool, bool]]) -> bool:
        anchor = list(self._cuts.anchor)
        encoded = self._tokenizer.encode_batch(
            [text if begins else ANCHOR + text for text, begins, _ in parts], False
        )
        found = []
        for ids, (_, begins, ends) in zip(encoded, parts, strict=True):
            if not begins and ids[: len(anchor)] != anchor:
                return False
            own = [*self._cuts.prefix, *ids] if begins else ids[len(anchor) :]
            found.append([*own, *self._cuts.suffix] if ends else own)
        self._ids = concatenate([self._ids, Ragged.of(found)])
        return True


def _renumber(keys: Ints) -> tuple[Ints, int]:
    """Return keys as numbers 0..K−1 in their order, and K."""
    bound = int(keys.max()) + 1
    if bound > 4 * len(keys) + 1024:
        values, numbers = np.unique(keys, return_inverse=True)
        return numbers.astype(np.int64, copy=False), len(values)
    present = np.zeros(bound, dtype=bool)
    present[keys] = True
    numbers = np.cumsum(present) - 1
    return numbers[keys], int(numbers[-1]) + 1
