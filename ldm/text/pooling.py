"""Reports -> feature vectors by a BERT."""

import logging
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ldm.text.bert import Bert
from ldm.text.wordpiece import WordPiece

log = logging.getLogger(__name__)

How = Literal["cls", "mean", "pooler", "projection"]


@torch.no_grad()
def embed(
    bert: Bert,
    wordpiece: WordPiece,
    texts: Sequence[str],
    how: How,
    limit: int | None = None,
    batch_size: int = 32,
) -> Tensor:
    """One vector per text: float [B, D], or [B, P] for "projection"; none is normalised.

    how: see `pool`
    limit: tokens of a text, [CLS] and [SEP] included; None: all positions of the BERT. The end of
        a longer text is cut off, with a warning in the log.
    """
    positions = bert.config.context_length
    limit = positions if limit is None else limit
    if isinstance(texts, str) or not texts:
        raise ValueError("texts must be a list of one text or more; put a single text in a list")
    if not 2 <= limit <= positions:
        raise ValueError(f"limit must be 2 to {positions} tokens for this BERT, got {limit}")
    rows = [wordpiece.encode(text) for text in texts]
    if dropped := [len(row) - limit for row in rows if len(row) > limit]:
        many = f"{len(dropped)} of {len(rows)} texts are longer than {limit} tokens"
        log.warning("%s; tokens dropped: %d", many, sum(dropped))
    rows = [shorten(row, limit) for row in rows]
    device = bert.token_embedding.weight.device
    vectors = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        ids, mask = (x.to(device) for x in pad(batch, wordpiece.pad))
        vectors.append(pool(bert, bert(ids, mask), mask, how))
    return torch.cat(vectors)


def shorten(row: Sequence[int], limit: int) -> list[int]:
    """At most `limit` tokens of a text; the last, an end mark, always stays."""
    return list(row) if len(row) <= limit else [*row[: limit - 1], row[-1]]


def pad(rows: Sequence[Sequence[int]], padding: int) -> tuple[Tensor, Tensor]:
    """Token ids of several texts as int64 [B, S], S of the longest, and the mask bool [B, S]."""
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.full(mask.shape, padding)
    ids[mask] = torch.tensor([i for row in rows for i in row])
    return ids, mask


def pool(bert: Bert, hidden: Tensor, mask: Tensor, how: How) -> Tensor:
    """One vector per text: hidden [B, S, D] -> [B, D].

    how: "cls", the state of [CLS]; "mean" over the tokens, [CLS] and [SEP] among them, as
        Sentence-BERT (arXiv:1908.10084, section 3) does; "pooler", BERT's layer over [CLS];
        "projection", CXR-BERT's (arXiv:2204.09817), of another width
    mask: bool [B, S]; states of padding do not enter a mean
    Raises ValueError for a head that this BERT does not have.
    """
    if how == "cls":
        return hidden[:, 0]
    if how == "mean":
        return mean(hidden, mask)
    if how == "pooler":
        return bert.pooled(hidden)
    if how == "projection":
        return bert.projected(hidden)
    raise ValueError(f"how is {how!r}; choose one of {', '.join(get_args(How))}")


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens that the mask [B, S] keeps: hidden [B, S, D] -> [B, D]."""
    kept = mask[..., None].to(hidden.dtype)  # [B, S, 1]
    return (hidden * kept).sum(1) / kept.sum(1)
