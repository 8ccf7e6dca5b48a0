"""Reports -> token ids, as BERT (arXiv:1810.04805) cuts them: WordPiece (arXiv:1609.08144)."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ldm.system import cli

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_WORD = 100  # characters; longer words are unknown
CHINESE = re.compile(  # characters without spaces between words; neither kana nor hangul
    "[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f"
    "\U0002b740-\U0002b81f\U0002b820-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f]"
)


class WordPiece:
    """Splits text into words and punctuation, and words into the longest pieces of a vocabulary.

    vocab: the tokens, in the order of their ids; pieces inside a word begin with ##
    lower: lower-case the text and remove accents
    Raises ValueError for a vocabulary without BERT's five special tokens.
    """

    def __init__(self, vocab: Sequence[str], lower: bool = True) -> None:
        self.ids = {token: i for i, token in enumerate(vocab)}
        self.lower = lower
        if absent := [token for token in SPECIAL if token not in self.ids]:
            raise ValueError(
                f"a vocabulary of {len(vocab)} tokens lacks {', '.join(absent)}; "
                "give the vocab.txt that came with the model"
            )
        self.size = len(vocab)
        self.pad, self.unknown, self.start, self.end, self.mask = (self.ids[s] for s in SPECIAL)

    @classmethod
    def load(cls, folder: str | Path) -> "WordPiece":
        """The tokenizer of a model folder: vocab.txt, and do_lower_case of tokenizer_config.json.

        The do_lower_case of sentence_bert_config.json has no effect on the tokenizer.
        Raises ValueError, in one line, if the files are missing or cannot be used.
        """
        folder, lower = Path(folder), True
        try:
            # not splitlines(), which would also break at characters that are tokens
            lines = (
                cli.regular(folder / "vocab.txt")
                .read_text(encoding="utf-8")
                .rstrip("\n")
                .split("\n")
            )
            if (settings := folder / "tokenizer_config.json").exists():
                lower = cli.parse_json(settings.read_text(encoding="utf-8")).get(
                    "do_lower_case", True
                )
        except OSError as error:
            raise ValueError(
                f"{error.filename} cannot be read ({error.strerror}); name the folder of a BERT, "
                "which has its vocab.txt"
            ) from error
        except (AttributeError, ValueError) as error:
            raise ValueError(f"the tokenizer in {folder} cannot be read: {error}") from error
        if not isinstance(lower, bool):
            raise ValueError(f"do_lower_case in {settings} is {lower!r}; write true or false")
        try:
            return cls([line.rstrip() for line in lines], lower)
        except ValueError as error:
            raise ValueError(f"{folder / 'vocab.txt'}: {error}") from error

    def encode(self, text: str) -> list[int]:
        """[CLS], the pieces, [SEP], of any length.

        A special token in the text, such as [MASK], is that token, as in Hugging Face's tokenizers;
        in Google's first one it was three words.
        """
        ids = [self.start]
        for part in re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text):
            if part in SPECIAL:
                ids.append(self.ids[part])
            else:
                ids += [i for word in words(part, self.lower) for i in self._pieces(word)]
        return [*ids, self.end]

    def _pieces(self, word: str) -> list[int]:
        """The ids of a word: at each place the longest piece that fits; [UNK] if none does."""
        ids: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.ids), None)
            if end is None:
                return [self.unknown]
            ids.append(self.ids[prefix + word[start:end]])
            start = end
        return ids or [self.unknown]


def words(text: str, lower: bool = True) -> Iterator[str]:
    """The words of a text; a punctuation mark or a Chinese character is a word of its own.

    Punctuation, accents and control characters are those of this Python's Unicode version.
    """
    text = CHINESE.sub(r" \g<0> ", "".join(filter(_is_text, text)))
    if lower:
        plain = (c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        text = "".join(c.lower() for c in plain)  # one by one: no final sigma
    for word in text.split():
        for is_mark, group in groupby(word, _is_mark):
            run = "".join(group)
            yield from run if is_mark else [run]


def _is_text(character: str) -> bool:
    """Neither a control nor an invisible character; these are removed, which may join two words."""
    return character in "\t\n\r" or (
        character != "\ufffd" and unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cs")
    )


def _is_mark(character: str) -> bool:
    """Punctuation, and all of ASCII that is neither letter nor digit, such as $, + and ^."""
    ascii_mark = character.isascii() and character.isprintable() and not character.isalnum()
    return ascii_mark or unicodedata.category(character).startswith("P")
