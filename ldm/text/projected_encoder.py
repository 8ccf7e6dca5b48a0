"""A BERT in the place of CLIP's text tower: its states, projected into CLIP's space.

Chambon et al., arXiv:2210.04133, section 2.5. The paper does not say what the U-Net attends to:

- document level: one vector, [B, 1, D], projected to CLIP's end-of-text state. 77 copies of it
  would give the same pictures: a softmax over equal keys is even, and its values are equal.
- token level: 77 vectors, one for each of CLIP's places. The two tokenizers cut a word differently,
  so places are matched word by word, see `PromptReader.layout`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ldm.clip import TextEncoder, tokenizer
from ldm.config import from_dict
from ldm.pipeline import LatentDiffusion
from ldm.system.atomic import digest
from ldm.text.bert import Bert
from ldm.text.bert_files import load_bert
from ldm.text.pooling import How, pad, pool
from ldm.text.projection import TextProjection
from ldm.text.wordpiece import WordPiece
from ldm.weights import adapters
from ldm.weights.loading import weights_hash

log = logging.getLogger(__name__)

Level = Literal["document", "token"]
PLACES = 77  # of CLIP's prompt


class WordAlignment(NamedTuple):
    """A text as both tokenizers cut it, place by place."""

    ids: list[int]  # of the encoder, [CLS] and [SEP] included
    places: list[int]  # [77]: for each place of CLIP's the place in `ids`, or in its padding
    dropped: list[str]  # words at the end beyond the room of either
    unknown: list[str]  # words with a piece that is not in the encoder's vocabulary


class PromptReader(nn.Module):
    """A frozen BERT that reads prompts.

    how: the vector of a document, as in pooling.pool
    Raises ValueError for a head that this BERT does not have, or too few positions.
    """

    def __init__(self, bert: Bert, wordpiece: WordPiece, level: Level, how: How = "mean") -> None:
        super().__init__()
        self.bert, self.wordpiece = bert.requires_grad_(False), wordpiece
        self.level, self.how = level, how
        if level == "token" and bert.config.context_length < PLACES:
            raise ValueError(
                f"this encoder has {bert.config.context_length} positions and CLIP {PLACES}; "
                "use the document level or another encoder"
            )
        self.width = self([""], log_dropped=False).shape[-1]  # raises for a missing head

    def layout(self, text: str) -> WordAlignment:
        """Cut words (at white space) by both tokenizers, and match their pieces in order.

        Of a word of n pieces of CLIP's and m of the encoder's, CLIP's piece k = 1 ... n is matched
        with the encoder's piece ceil(k m / n): the last with the last, as CLIP's attention is
        causal. A word without pieces of the encoder's shares the place before it. Start is matched
        with [CLS], end with [SEP], and padding with the encoder's own padding at that place, whose
        states depend on text and place; before the encoder's padding begins, with [SEP].
        """
        ids, places = [self.wordpiece.start], [0]
        words = text.split()
        kept, unknown, room = 0, [], self.bert.config.context_length
        for word in words:
            ours = self.wordpiece.encode(word)[1:-1]
            theirs = tokenizer().encode(word) if self.level == "token" else []
            if len(ids) + len(ours) >= room or len(places) + len(theirs) >= PLACES:
                break
            pieces = range(1, len(theirs) + 1)
            places += [len(ids) - 1 - (-k * len(ours) // len(theirs)) for k in pieces]
            ids += ours
            kept += 1
            if self.wordpiece.unknown in ours:
                unknown.append(word)
        ids.append(self.wordpiece.end)
        end = len(ids) - 1
        places += [end, *(max(i, end) for i in range(len(places) + 1, PLACES))]
        return WordAlignment(ids, places, words[kept:], unknown)

    def forward(self, texts: Sequence[str], log_dropped: bool = True) -> Tensor:
        """The encoder's states: [B, 1, E] at document level, [B, 77, E] at token level.

        log_dropped: False for texts that may be patients'; words without room or token
        """
        rows = [self.layout(text) for text in texts]
        for row in rows if log_dropped else ():
            if row.dropped:
                log.warning("too long; these words are ignored: %s", " ".join(row.dropped))
            if row.unknown:
                log.warning("not in the encoder's vocabulary: %s", " ".join(row.unknown))
        device = self.bert.token_embedding.weight.device
        # at token level states of padding are needed, too: a row of 77 makes all at least as long
        longest = [[0] * PLACES] if self.level == "token" else []
        padded = pad([*(row.ids for row in rows), *longest], self.wordpiece.pad)
        ids, mask = (x[: len(rows)].to(device) for x in padded)
        states = self.bert(ids, mask)
        if self.level == "document":
            return pool(self.bert, states, mask, self.how)[:, None]
        places = torch.tensor([row.places for row in rows], device=device)
        return states[torch.arange(len(rows), device=device)[:, None], places]


def clip_states(text: TextEncoder, texts: Sequence[str], level: Level) -> Tensor:
    """The target of a projection: [B, 77, D], or of a document the end-of-text state [B, 1, D]."""
    tokens = text.tokenize(texts, log_dropped=False).to(text.token_embedding.weight.device)
    if level == "token":
        return text(tokens)
    ends = (tokens == tokenizer().eot_token_id).int().argmax(dim=1)  # the first of them
    states = text(tokens[:, : ends.max() + 1])  # causal: later tokens do not change it
    return states[torch.arange(len(tokens), device=ends.device), ends][:, None]


@dataclass(frozen=True)
class About:
    """The encoder, the text tower and the settings of a projection; stored beside its tensors."""

    encoder: str  # the folder of the BERT
    encoder_hash: str
    clip_hash: str
    level: Level
    how: How
    fit: Literal["mlp", "ridge", "none"]
    width: int  # of CLIP
    layers: int
    hidden: int


class ProjectedText(nn.Module):
    """Prompts -> the context of the U-Net, without CLIP's text tower."""

    def __init__(self, reader: PromptReader, projection: nn.Module, about: About) -> None:
        super().__init__()
        self.reader, self.projection, self.about = reader, projection, about

    def forward(self, prompts: Sequence[str], log_dropped: bool = True) -> Tensor:
        """[B, 1, D] at document level, [B, 77, D] at token level; arguments as of PromptReader."""
        return self.projection(self.reader(prompts, log_dropped))

    def provenance(self) -> str:
        """For the text of a PNG."""
        about = self.about
        how = f"{about.how}, " if about.level == "document" else ""
        encoder = f"{Path(about.encoder).name} {about.encoder_hash}"
        return f"{encoder}, projected to CLIP: {about.level} level, {how}{about.fit}"


def open_reader(folder: str, level: Level, how: How) -> tuple[PromptReader, str]:
    """A reader around the BERT in a folder, and the hash of its weights and vocabulary."""
    bert, wordpiece = load_bert(folder)
    name = weights_hash({"bert": bert.state_dict()})
    vocabulary = digest([list(wordpiece.ids), wordpiece.lower])
    return PromptReader(bert, wordpiece, level, how), f"{name}-{vocabulary}"


def replace_text(pipe: LatentDiffusion, path: str) -> None:
    """Read prompts by the encoder of a projection file from now on; `weights_hash` names it.

    Raises ValueError, in one line, if the encoder is missing or another one, for another model's
    projection, or if the tower has learned words, which the encoder does not know.
    """
    tensors, facts = adapters.load(path, "projection")
    try:
        about = from_dict(About, facts)
        reader, found = open_reader(about.encoder, about.level, about.how)
    except ValueError as error:
        raise ValueError(f"cannot use the projection {path}: {error}") from error
    if found != about.encoder_hash:
        raise ValueError(
            f"{path} projects from the encoder {about.encoder_hash}, but {about.encoder} now holds "
            f"{found}; put the old one back, or train the projection again"
        )
    try:
        if len(tensors) != 4 * about.layers + 2:
            raise RuntimeError
        with torch.device("meta"):  # which needs no memory, whatever the sizes
            projection = TextProjection(reader.width, about.width, about.layers, about.hidden)
        projection.load_state_dict({n: t.float() for n, t in tensors.items()}, assign=True)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} holds other tensors than its own settings say") from error
    if pipe.text.words:
        raise ValueError(f"{path} does not know {', '.join(pipe.text.words)}; use one or the other")
    tower = weights_hash({"text": pipe.text.state_dict()})
    if tower != about.clip_hash:
        raise ValueError(
            f"{path} projects to the text tower {about.clip_hash}, but this model has "
            f"{tower}; name the model that it was trained for, or train it for this one"
        )
    pipe.other_text = ProjectedText(reader, projection.requires_grad_(False), about).eval()
    anywhere = {**facts, "encoder": ""}  # the hash does not depend on the encoder's folder
    pipe.weights_hash += f"+{digest([anywhere, adapters.digest(tensors)])[:8]}"
