"""Token ids against Hugging Face's tokenizer, string by string, and what files may say.

goldens/wordpiece.json says how it was made; of the vocabulary it keeps what these texts can use.
"""

import json
from pathlib import Path

import pytest
from conftest import GOLDENS

from ldm.text.wordpiece import SPECIAL, WordPiece, words

WANTED = json.loads((GOLDENS / "wordpiece.json").read_text(encoding="utf-8"))
STRINGS = [pytest.param(row, id=ascii(row["text"])[:30]) for row in WANTED["strings"]]
SMALL = [*SPECIAL, "lung", "Lung", "##s"]


def golden_vocab() -> list[str]:
    vocab = [f"[{i} is not needed]" for i in range(WANTED["size"])]
    for token, i in WANTED["vocab"].items():
        vocab[i] = token
    return vocab


def write_folder(folder: Path, files: dict[str, str | None]) -> Path:
    for name, content in {"vocab.txt": "\n".join(SMALL), **files}.items():
        if content is not None:
            (folder / name).write_bytes(content.encode())
    return folder


@pytest.mark.parametrize("row", STRINGS)
@pytest.mark.parametrize("lower", [True, False])
def test_ids_are_those_of_the_reference(row: dict, lower: bool) -> None:
    """Every id is the reference's: accents, CJK, invisible characters, special tokens and all."""
    assert WordPiece(golden_vocab(), lower).encode(row["text"]) == row["ids" if lower else "cased"]


def test_special_tokens_in_the_text_are_special_only_as_written() -> None:
    """[MASK] inside a word is the mask; [mask] is three words, as all of it is lower-cased."""
    wordpiece = WordPiece(SMALL)
    assert wordpiece.encode("lung[MASK]lungs") == [2, 5, 4, 5, 7, 3]
    assert list(words("[mask]")) == ["[", "mask", "]"]


def test_a_word_of_100_characters_is_the_longest() -> None:
    """Words of up to 100 characters are cut into pieces, longer ones are unknown."""
    wordpiece = WordPiece([*SPECIAL, "a", "##a"])
    assert wordpiece.encode("a" * 100) == [2, 5, *[6] * 99, 3]
    assert wordpiece.encode("a" * 101) == [2, 1, 3]


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({}, [5]),
        ({"tokenizer_config.json": "{}"}, [5]),
        ({"tokenizer_config.json": '{"do_lower_case": false}'}, [6]),
        ({"sentence_bert_config.json": '{"do_lower_case": false}'}, [5]),
        ({"vocab.txt": "\r\n".join(SMALL) + "\r\n"}, [5]),
    ],
)
def test_trap_4_only_tokenizer_config_decides_on_case(
    tmp_path: Path, files: dict[str, str], ids: list[int]
) -> None:
    """do_lower_case of tokenizer_config.json counts, true by default; other files' does not."""
    wordpiece = WordPiece.load(write_folder(tmp_path, files))
    assert wordpiece.size == len(SMALL)
    assert wordpiece.encode("Lung") == [2, *ids, 3]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab.txt": None}, r"vocab\.txt cannot be read"),
        ({"vocab.txt": "lung\n"}, r"vocab\.txt: .*lacks \[PAD\]"),
        ({"tokenizer_config.json": "{"}, "cannot be read"),
        ({"tokenizer_config.json": "[]"}, "cannot be read"),
        ({"tokenizer_config.json": '{"do_lower_case": "no"}'}, "write true or false"),
    ],
)
def test_bad_files_give_one_line(tmp_path: Path, files: dict, message: str) -> None:
    """A missing or bad vocabulary or setting is refused in one line that names the file."""
    with pytest.raises(ValueError, match=message) as error:
        WordPiece.load(write_folder(tmp_path, files))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
