"""CLIP's byte-pair encoding with the merges cut to what the training names use, as a ``tokenizer.json``.

Ids: 0 pads, then 256 bytes inside a word and 256 at its end, then merged pieces, then start and end. Every byte is
kept, so any text encodes, in smaller pieces where a merge was cut. Cutting merges that a word does not use leaves its
pieces as they are: at each step the best merge of the whole list is still the best of those that are left.

Text is put into NFC, curly quotes are straightened, white space is collapsed and letters are lowered, as in CLIP.
CLIP also repairs mis-decoded text and HTML entities; that is left to whoever reads such text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

PAD, START, END = "<|pad|>", "<|startoftext|>", "<|endoftext|>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
"""CLIP's words: letters, one digit, or a run of other signs."""
LEAST = 4
"""Texts of the wide vocabulary that a merge must occur in; those of emoji names and templates are always kept."""

Merge = tuple[str, str]


@lru_cache(maxsize=1)
def _clip() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def merges_of(tokenizer: Tokenizer, text: str) -> set[Merge]:
    """The merges that CLIP applies to the words of a text."""
    ranks: dict[Merge, int] = _clip().bpe_ranks
    used: set[Merge] = set()
    normal = tokenizer.normalizer.normalize_str(text)
    for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal):
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            used.add(best)
            parts = _join(parts, best)
    return used


def _join(parts: list[str], pair: Merge) -> list[str]:
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def build(kept: Iterable[str], counted: Iterable[str]) -> Tokenizer:
    """A tokenizer with every merge that a text of ``kept`` uses, or that ``LEAST`` texts of ``counted`` do."""
    bare = assemble([])
    counts: Counter[Merge] = Counter()
    for text in counted:
        counts.update(merges_of(bare, text))
    used = {merge for merge, count in counts.items() if count >= LEAST}
    for text in kept:
        used |= merges_of(bare, text)
    return assemble([merge for merge in all_merges() if merge in used])


def all_merges() -> list[Merge]:
    """CLIP's merges, best first."""
    ranks: dict[Merge, int] = _clip().bpe_ranks
    return sorted(ranks, key=ranks.__getitem__)


def assemble(merges: list[Merge]) -> Tokenizer:
    """The tokenizer with these merges, best first. A merge whose parts cannot arise is an error of the library."""
    signs = list(_clip().byte_encoder.values())
    pieces = [PAD, *signs, *(sign + "</w>" for sign in signs), *dict.fromkeys("".join(pair) for pair in merges)]
    ids = {piece: index for index, piece in enumerate([*pieces, START, END])}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>"))
    straight = [normalizers.Replace(Regex("[‘’]"), "'"), normalizers.Replace(Regex("[“”]"), '"')]
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), *straight, spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    ends = [(START, ids[START]), (END, ids[END])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return tokenizer


def compact(tokenizer: Tokenizer) -> str:
    """The content of tokenizer.json without the indentation that doubles it."""
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
