"""Prompts as other programs read them: (word:1.2), [word], BREAK, and more than 77 tokens.

A prompt is cut into windows of 75 tokens, which the text tower encodes one by one, and the U-Net
attends to all of them. The state z of a token with the weight w becomes, in each window,

    a1111     w z * mean(z) / mean(w z)     AUTOMATIC1111's web UI: the mean of a window stays
    comfyui   e + w (z - e)                 ComfyUI: e is the state of the empty prompt there

(word) is (word:1.1), [word] divides by 1.1, brackets multiply, BREAK ends a window, and a backslash
makes a bracket plain. Neither program's care for commas near the end of a window is taken over.
"""

import logging
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.clip import TextEncoder, tokenizer
from ldm.config import ConfigError
from ldm.pipeline import LatentDiffusion

log = logging.getLogger(__name__)

SYNTAXES = ("a1111", "comfyui")
MARKS = re.compile(
    r"\\[()\[\]\\]|:\s*([+-]?\d*\.?\d+)\s*\)|[()\[\]]|\bBREAK\b|[^\\()\[\]:B]+|.", re.DOTALL
)
STEP = 1.1  # what a pair of brackets multiplies by

Window = list[tuple[int, float]]  # token ids and their weights


def parse(prompt: str) -> list[tuple[str, float]]:
    """Pieces of text with their weights; "BREAK" has the weight 0."""
    pieces: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, factor: float) -> None:
        start = opened[bracket].pop()
        pieces[start:] = [(text, weight * factor) for text, weight in pieces[start:]]

    joined = False  # is the last piece text that goes on? Else words would be cut in two
    for match in MARKS.finditer(prompt):
        mark, number = match[0], match[1]
        before, joined = joined, False
        if mark in opened:
            opened[mark].append(len(pieces))
        elif number and opened["("]:
            close("(", float(number))
        elif mark == ")" and opened["("]:
            close("(", STEP)
        elif mark == "]" and opened["["]:
            close("[", 1 / STEP)
        elif mark == "BREAK":
            pieces.append((mark, 0.0))
        else:
            text = mark[1:] if mark[0] == "\\" and len(mark) > 1 else mark
            text = pieces.pop()[0] + text if before else text
            pieces.append((text, 1.0))
            joined = True
    while opened["("]:  # never closed: to the end
        close("(", STEP)
    while opened["["]:
        close("[", 1 / STEP)
    return pieces


class WeightedPrompts(nn.Module):
    """A text encoder for `LatentDiffusion.other_text`: prompts -> [B, 77 k, D].

    k is the number of windows of the longest of `prompts`, or `least`; shorter ones are filled with
    windows of the empty prompt.

    syntax: one of SYNTAXES; None: a prompt is plain text
    """

    def __init__(
        self,
        text: TextEncoder,
        prompts: Sequence[str],
        syntax: str | None,
        long: bool,
        least: int = 1,
    ) -> None:
        super().__init__()
        if syntax not in (None, *SYNTAXES):
            raise ConfigError(f"unknown prompt syntax {syntax!r}; known: {', '.join(SYNTAXES)}")
        self.text, self.syntax, self.long = text, syntax, long
        counts = [len(self.windows(prompt)) for prompt in prompts]
        if not long and max(counts) > 1:
            log.warning("only the first of %d windows is read; see --long-prompts", max(counts))
        self.count = max(least, *counts) if long else 1

    def windows(self, prompt: str) -> list[Window]:
        """Of 75 tokens or fewer."""
        room, windows = self.text.config.context_length - 2, [Window()]
        for piece, weight in parse(prompt) if self.syntax else [(prompt, 1.0)]:
            if weight == 0 and piece == "BREAK":
                windows.append([])
                continue
            for word in self.words(piece):
                if windows[-1] and len(windows[-1]) + len(word) > room:
                    windows.append([])
                windows[-1] += [(token, weight) for token in word]
        return windows

    def words(self, piece: str) -> list[list[int]]:
        """The tokens of each word, which share a window, as in training (data.long_captions)."""
        words: list[list[int]] = [[]]
        room = self.text.config.context_length - 2
        for token in self.text._encode(piece):
            words[-1].append(token)
            ends = tokenizer().decoder.get(token, "</w>").endswith("</w>")
            if ends or len(words[-1]) == room:
                words.append([])
        return words

    def forward(self, prompts: Sequence[str], log_dropped: bool = True) -> Tensor:
        """[B, 77 k, D]"""
        rows = []
        for prompt in prompts:
            windows = self.windows(prompt)[: self.count]
            windows += [[] for _ in range(self.count - len(windows))]
            rows.append(torch.cat([self._encode(window) for window in windows]))
        return torch.stack(rows)

    def _encode(self, window: Window) -> Tensor:
        """[77, D]"""
        tokens = self.text.tokenize([""])[0]
        ids, end = [token for token, _ in window], tokenizer().eot_token_id
        tokens[1 : 2 + len(ids)] = torch.tensor([*ids, end])
        z = self.text(tokens[None].to(self.text.ln_final.weight.device))[0]
        weights = torch.ones(len(z))
        weights[1 : 1 + len(ids)] = torch.tensor([weight for _, weight in window])
        w = weights[:, None].to(z)
        if self.syntax is None or (w == 1).all():
            return z
        if self.syntax == "a1111":
            return w * z * (z.mean() / (w * z).mean())
        empty = self.text(self.text.tokenize([""]).to(z.device))[0]
        return empty + w * (z - empty)


def use(
    pipe: LatentDiffusion, prompts: Sequence[str], syntax: str | None, long_prompts: str | None
) -> None:
    """Let the pipeline read its prompts so; prompts: all that it will be given.

    long_prompts: cut, chunks, or as a PNG has it: "chunks 3", windows of the longest prompt there
    """
    if pipe.other_text is not None:
        raise ConfigError(
            "--prompt-syntax and --long-prompts are of CLIP's tower; not with another"
        )
    if not (match := re.fullmatch(r"cut|(chunks)(?: (\d{1,3}))?", long_prompts or "cut")):
        raise ConfigError(f"long prompts are cut or chunks, got {long_prompts!r}")
    least = int(match[2] or 1)
    pipe.other_text = WeightedPrompts(pipe.text, prompts, syntax, match[1] is not None, least)
