"""The key of a study and the answers of its readers, read back from their files."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ldm.report.readers import trials
from ldm.report.readers.trials import CATCH, PAIR, REAL, SYNTHETIC
from ldm.system import cli

ANSWERS = "ldm reader study 1"  # the format of what the page saves
SAID = ("real", "unsure", "fake")


class Answer(NamedTuple):
    """said: one of SAID, or a score of 1 to 5;  confidence: 1 to 5, 0 for unsure and for a score"""

    said: str | int
    confidence: int
    seconds: float
    remark: str

    @property
    def rating(self) -> int:
        """From -5, certainly real, over 0, unsure, to 5, certainly fake."""
        return {"real": -1, "unsure": 0, "fake": 1}[str(self.said)] * self.confidence


class Trial(NamedTuple):
    """repeats: the trial that showed the same image before;  others: see trials.Item"""

    id: str
    truth: str
    image: str
    repeats: str | None
    set: str = ""
    findings: Mapping[str, bool] = {}


class Key(NamedTuple):
    study: str
    mode: str
    made: dict[str, Any]
    trials: list[Trial]


class Reader(NamedTuple):
    name: str
    answers: Mapping[str, Answer]  # by the id of the trial


def read_key(path: str) -> Key:
    """Raises ValueError, in one line, for a file that is no key, or one that was changed."""
    content = read_json(path)
    try:
        if content["format"] != trials.KEY:
            raise ValueError
        each = [Trial(**trial) for trial in content["trials"]]
        truths = {"pairs": (PAIR, CATCH), "authenticity": (REAL, SYNTHETIC, CATCH)}[content["mode"]]
        key = Key(str(content["study"]), content["mode"], dict(content["made"]), each)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no key of a reader study; name its key.json") from error
    ids, first = set[str](), dict[tuple[str, ...], str]()  # first: the trial that showed an image
    for place, trial in enumerate(each, 1):
        where = f"{path}: trial {place}"
        if (
            not all(isinstance(text, str) for text in (*trial[:3], trial.set))
            or trial.truth not in truths
        ):
            raise ValueError(f"{where} must be {' or '.join(truths)}, got {trial.truth!r}")
        image = trial.truth, trial.set, trial.image
        repeats = None if trial.truth == CATCH else first.setdefault(image, trial.id)
        if trial.id in ids or trial.repeats != (None if repeats == trial.id else repeats):
            raise ValueError(f"{where} comes twice, or repeats another image; the key was changed")
        shown = trial.findings
        if not isinstance(shown, dict) or not all(isinstance(v, bool) for v in shown.values()):
            raise ValueError(f"{where} must have findings that are true or false, got {shown!r}")
        ids.add(trial.id)
    return key


def read_answers(path: str, key: Key, incomplete: bool = False) -> Reader:
    """Raises ValueError, in one line, for answers to another study, changed or incomplete ones.

    incomplete: take answers to a part of the study
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != ANSWERS:
        raise ValueError(f"{path} holds no answers; name the file that the page saved")
    if content.get("study") != key.study:
        raise ValueError(f"{path} answers study {content.get('study')}, the key is of {key.study}")
    name, answers = content.get("reader"), content.get("answers")
    if not (isinstance(name, str) and name and isinstance(answers, list)):
        raise ValueError(f"{path} has no reader or no answers; it was changed")
    known = {trial.id for trial in key.trials}
    found: dict[str, Answer] = {}
    for place, each in enumerate(answers, 1):
        where = f"{path}: answer {place}"
        number = each.get("id") if isinstance(each, dict) else None
        if not isinstance(number, str) or number not in known:
            raise ValueError(f"{where} is to an image that the study has not; it was changed")
        if number in found:
            raise ValueError(f"{where} is the second one to image {number}; it was changed")
        found[number] = _answer(each, key.mode, where)
    if len(found) < len(known) and not incomplete:
        raise ValueError(
            f"{path} answers {len(found)} of {len(known)} images; let reader {name} finish, or "
            "score what there is with --incomplete"
        )
    return Reader(name, found)


def read_all(paths: Sequence[str], key: Key, incomplete: bool = False) -> list[Reader]:
    readers = [read_answers(path, key, incomplete) for path in paths]
    named: dict[str, str] = {}
    for path, reader in zip(paths, readers, strict=True):
        if reader.name in named:
            raise ValueError(
                f"{named[reader.name]} and {path} are both of reader {reader.name}; name each "
                "reader once"
            )
        named[reader.name] = path
    return readers


def read_json(path: str) -> Any:
    try:
        return cli.parse_json(cli.regular(path).read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # also of bytes that are no UTF-8
        raise ValueError(f"{path} is no JSON ({error}); save it again") from error


def _answer(each: Mapping[str, Any], mode: str, where: str) -> Answer:
    said, sure = each.get("answer"), each.get("confidence")
    seconds, remark = each.get("seconds"), each.get("remark", "")
    if mode == "pairs":
        if type(said) is not int or not 1 <= said <= 5:
            raise ValueError(f"{where} must be a score of 1 to 5, got {said!r}")
        sure = 0
    elif said not in SAID:
        raise ValueError(f"{where} must be {', '.join(SAID[:-1])} or {SAID[-1]}, got {said!r}")
    elif said == "unsure":
        sure = 0
    elif type(sure) is not int or not 1 <= sure <= 5:
        raise ValueError(f"{where} must have a confidence of 1 to 5, got {sure!r}")
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise ValueError(f"{where} must have seconds of 0 or more, got {seconds!r}")
    return Answer(said, sure, float(seconds), str(remark))
