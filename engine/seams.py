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
_MOST_NODES = 1 << 20
"""More than nodes, heads or tails can be."""


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
        self._known: dict[int, int] = {}
        self._is_cut = np.ones(1, dtype=bool)
        self._head, self._tail = np.zeros((2, 1), dtype=np.int64)
        self._heads: dict[str | None, int] = {None: _EDGE}
        self._tails: dict[str | None, int] = {None: _EDGE}
        self._uncut: dict[int, str] = {}
        # parts by text and whether it begins or ends a prompt; those of one node by a shorter name
        self._part: dict[tuple[str, bool, bool], int] = {}
        self._number: dict[int, int] = {}
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
        ends = np.append(np.flatnonzero(cut), len(node) - 1)
        lengths = np.diff(ends, prepend=-1)
        first = ends - lengths + 1
        begin = node[first]
        between = kind[ends[:-1]]
        tail = np.append(_EDGE, self._tail[between])
        head = np.append(self._head[between], _EDGE)
        label = tail * self._n_nodes + begin
        longest = int(lengths.max())
        if longest > 1:
            label, bound = _renumber(label)
        for step in range(1, longest):
            longer = lengths > step
            further = label[longer] * self._n_nodes + node[first[longer] + step]
            extended, more = _renumber(further)
            label[longer] = bound + extended
            bound += more
        label, count = _renumber(label * len(self._heads) + head)
        example = np.empty(count, dtype=np.int64)
        example[label] = np.arange(len(label))
        number = self._parts(node, *(of[example] for of in (first, lengths, tail, head)))
        if number is None:
            return None
        made = self._ids.take(number[label])
        begins = np.append(np.flatnonzero(begin == 0), len(first))
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
        # of pairs alike, the one with the least between them is looked at
        narrow = (right - left).argsort(kind="stable")
        codes, left, right = codes[narrow], left[narrow], right[narrow]
        first, last = self._next_rough[left], self._last_rough[right]
        only_plain = first >= right
        more_left, more_right = left < first, right > last + 1
        likeness = 4 * (first * self._n_nodes + last) + 2 * more_left + more_right
        likeness[only_plain] = -1
        alike, examples, which = np.unique(likeness, return_index=True, return_inverse=True)
        kinds = [self._known.setdefault(one, len(self._known) + 1) for one in alike.tolist()]
        self._kind[codes] = np.array(kinds)[which]
        cuts: list[bool] = []
        heads: list[int] = []
        tails: list[int] = []
        pairs = zip(kinds, left[examples].tolist(), right[examples].tolist(), strict=True)
        for kind, a, b in pairs:
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

    def _parts(self, node: Ints, first: Ints, lengths: Ints, tail: Ints, head: Ints) -> Ints | None:
        """Return the number of each part [K], None where one can't be told from its anchor.

        Args:
            node: Nodes of all prompts, one after the other.
            first: Where a part's first node stands there [K].
            lengths: Its number of nodes [K].
            tail: What of the gap before it belongs to it, a number of `_tails` [K].
            head: The same of the gap after it, of `_heads` [K].
        """
        codes = (tail * _MOST_NODES + head) * _MOST_NODES + node[first]
        codes[lengths > 1] = -1  # few: told apart by their texts
        numbers = np.array([self._number.get(code, -1) for code in codes.tolist()], dtype=np.int64)
        unknown = np.flatnonzero(numbers < 0).tolist()
        if not unknown:
            return numbers
        heads, tails = list(self._heads), list(self._tails)
        new: list[tuple[str, bool, bool]] = []
        for i in unknown:
            nodes = node[first[i] : first[i] + lengths[i]].tolist()
            texts = [tails[tail[i]] or "", self._texts[nodes[0]]]
            for left, right in itertools.pairwise(nodes):
                kind = int(self._kind[left * self._n_nodes + right])
                texts += [self._uncut[kind], self._texts[right]]
            texts.append(heads[head[i]] or "")
            key = ("".join(texts), nodes[0] == 0, nodes[-1] == self._n_nodes - 1)
            if key not in self._part:
                self._part[key] = len(self._part)
                new.append(key)
            numbers[i] = self._part[key]
            if len(nodes) == 1:
                self._number[int(codes[i])] = self._part[key]
        if new and not self._tokenize(new):
            return None
        return numbers

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
