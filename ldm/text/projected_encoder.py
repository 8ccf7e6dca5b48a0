"""Another text encoder in the place of CLIP's: its states, projected into CLIP's space.

Chambon et al., arXiv:2210.04133, section 2.5. The paper leaves open what the U-Net attends to:

- document level: one vector, where CLIP's end-of-text state would be. It is all that the U-Net
  attends to, [B, 1, D]; 77 copies of it would give the same pictures, because a softmax over equal
  keys is even and its values are equal. CLIP's start and padding states are not there.
- token level: 77 vectors, one for each of CLIP's places. The two tokenizers cut a word differently,
  so places are matched word by word, see `PromptReader.layout`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ldm.clip import TextEncoder, tokenizer
from ldm.config import from_dict
from ldm.pipeline import LatentDiffusion
from ldm.system.fingerprint import digest
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
    """A text as both tokenizers cut it."""

    ids: list[int]  # of the encoder, [CLS] and [SEP] included
    places: list[int]  # [77]: for each place of CLIP's the place in `ids`, or in its padding
    dropped: list[str]  # the words at the end that found no room
    unknown: list[str]  # the words with a piece that the encoder has no token for


class PromptReader(nn.Module):
    """A frozen BERT that reads prompts.

    how: what stands for a document, as in text_features.pool
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
        self.width = self([""], tell=False).shape[-1]  # raises for a missing head

    def layout(self, text: str) -> WordAlignment:
        """Words (at white space) are cut by both tokenizers, and their pieces matched in order.

        Of a word of n pieces of CLIP's and m of the encoder's, CLIP's piece k = 1 ... n is matched
        with the encoder's piece ceil(k m / n): the last with the last, as CLIP looks back only. A
        word that the encoder does not see shares the place before it. Start is matched with [CLS],
        end with [SEP], and padding with the encoder's own padding at that place, whose states have
        seen the text, too, and know where they are; before that is reached, with [SEP].
        """
        ids, places = [self.wordpiece.start], [0]
        words = text.split()
        kept, unknown = 0, []
        for word in words:
            ours = self.wordpiece.encode(word)[1:-1]
            theirs = tokenizer().encode(word) if self.level == "token" else []
            if len(ids) + len(ours) >= self.bert.config.context_length:
                break
            if len(places) + len(theirs) >= PLACES:
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

    def forward(self, texts: Sequence[str], tell: bool = True) -> Tensor:
        """The encoder's states: [B, 1, E] at document level, [B, 77, E] at token level.

        tell: log words without room or without a token; False for texts that may be patients'
        """
        layouts = [self.layout(text) for text in texts]
        for layout in layouts if tell else ():
            if layout.dropped:
                log.warning("too long; these words are ignored: %s", " ".join(layout.dropped))
            if layout.unknown:
                log.warning("not in the encoder's vocabulary: %s", " ".join(layout.unknown))
        rows = [layout.ids for layout in layouts]
        device = self.bert.token_embedding.weight.device
        if self.level == "document":
            ids, mask = (x.to(device) for x in pad(rows, self.wordpiece.pad))
            return pool(self.bert, self.bert(ids, mask), mask, self.how)[:, None]
        # a row of 77 makes the others at least as long; the places of padding are needed, too
        ids, mask = (x[:-1].to(device) for x in pad([*rows, [0] * PLACES], self.wordpiece.pad))
        places = torch.tensor([layout.places for layout in layouts], device=device)
        return self.bert(ids, mask)[torch.arange(len(rows), device=device)[:, None], places]


def clip_states(text: TextEncoder, texts: Sequence[str], level: Level) -> Tensor:
    """What is projected to: [B, 77, D], or at document level the end-of-text state, [B, 1, D]."""
    tokens = text.tokenize(texts, tell=False).to(text.token_embedding.weight.device)
    if level == "token":
        return text(tokens)
    ends = (tokens == tokenizer().eot_token_id).int().argmax(dim=1)  # the first of them
    states = text(tokens[:, : ends.max() + 1])  # what comes after it does not matter to it
    return states[torch.arange(len(tokens), device=ends.device), ends][:, None]


@dataclass(frozen=True)
class About:
    """What a projection belongs to and how it was made; stored beside its tensors."""

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
    """Prompts -> what the U-Net attends to, without CLIP's text tower."""

    def __init__(self, reader: PromptReader, projection: nn.Module, about: About) -> None:
        super().__init__()
        self.reader, self.projection, self.about = reader, projection, about

    def forward(self, prompts: Sequence[str], tell: bool = True) -> Tensor:
        """[B, 1, D] at document level, [B, 77, D] at token level; `tell` as in PromptReader."""
        return self.projection(self.reader(prompts, tell))

    def provenance(self) -> str:
        """For the PNG text of what is drawn with it."""
        about = self.about
        how = f"{about.how}, " if about.level == "document" else ""
        encoder = f"{Path(about.encoder).name} {about.encoder_hash}"
        return f"{encoder}, projected to CLIP: {about.level} level, {how}{about.fit}"


def open_reader(folder: str, level: Level, how: How) -> tuple[PromptReader, str]:
    """A reader around the BERT in a folder, and the hash that names its weights.

    Raises ValueError, in one line, for a folder without one.
    """
    bert, wordpiece = load_bert(folder)
    name = weights_hash({"bert": bert.state_dict()})
    # other words or letters are another encoder, though all weights are equal
    vocabulary = [list(wordpiece.ids), wordpiece.lower]
    return PromptReader(bert, wordpiece, level, how), f"{name}-{digest(vocabulary)}"


def build(
    path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> ProjectedText:
    """The projection that a file holds, and its encoder: float32, eval mode, on the CPU.

    path: of the file, for messages;  tensors, facts: as ldm.weights.adapters.load has them
    Raises ValueError, in one line, if the encoder is not there or is another one.
    """
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
    projection = TextProjection(reader.width, about.width, about.layers, about.hidden)
    try:
        projection.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} holds other tensors than its own settings want") from error
    return ProjectedText(reader, projection.requires_grad_(False), about).eval()


def replace_text(pipe: LatentDiffusion, path: str) -> None:
    """Let the encoder of a projection read the prompts, in the place of CLIP's text tower.

    Raises ValueError for the projection of another model's tower, or where the tower has learned
    words, which the other encoder does not know.
    """
    tensors, facts = adapters.load(path, "projection")
    projected = build(path, tensors, facts)
    if pipe.text.words:
        raise ValueError(f"{path} does not know {', '.join(pipe.text.words)}; use one or the other")
    tower = weights_hash({"text": pipe.text.state_dict()})
    if tower != projected.about.clip_hash:
        raise ValueError(
            f"{path} projects to the text tower {projected.about.clip_hash}, but this model has "
            f"{tower}; name the model that it was trained for, or train it for this one"
        )
    pipe.other_text = projected
    about = {**facts, "encoder": ""}  # wherever it lies
    pipe.weights_hash += f"+{digest([about, adapters.digest(tensors)])[:8]}"
