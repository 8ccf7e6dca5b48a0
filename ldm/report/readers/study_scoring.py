"""evaluate.py reader-study score: figures, agreement and attention from the answers."""

import argparse
from collections.abc import Mapping, Sequence

from ldm.config import ConfigError
from ldm.report import Report, page
from ldm.report.page import Block, Table
from ldm.report.readers import copy_rating, count_contradictions, detection, remark_findings
from ldm.report.readers.answers import Key, Reader, read_all, read_key
from ldm.report.readers.readings import Attentiveness, agreement, attention

TITLE = {
    "authenticity": "Could readers tell real from synthetic?",
    "pairs": "How good did readers find the copies?",
}


def run(options: argparse.Namespace) -> Report:
    """Raises ValueError, before any file is written, for answers that cannot be scored."""
    if options.counts:
        if options.key:
            raise ConfigError("--counts FILE takes no key and no answers")
        return count_contradictions.run(options.counts)
    if not options.answers:
        raise ConfigError("score needs KEY and ANSWERS of one reader or more, or --counts FILE")
    key = read_key(options.key)
    readers = read_all(options.answers, key, options.incomplete)
    way = copy_rating if key.mode == "pairs" else detection
    watched = {reader.name: attention(key, reader) for reader in readers}
    found = way.measure(key, readers)
    agreed = agreement(key, readers)
    kappa = {"kappa": agreed}
    for name in detection.synthetic_sets(key):
        of_set = key._replace(trials=[t for t in key.trials if name == (t.set or t.truth)])
        kappa[f"of {name}"] = agreement(of_set, readers)
    named = {reader.name: remark_findings.measure(key, reader) for reader in readers}
    kappas: Block = "One reader alone agrees with nobody: no kappa between readers."
    if agreed:
        kappas = Table.of(page.passage("reader_agreement"), "readers", kappa)
    blocks: list[Block] = [
        about(key, readers),
        *way.blocks(found, key, readers),
        kappas,
        care(watched, key),
        *remarks(key, readers, named),
    ]
    values = {
        "study": key.study,
        "mode": key.mode,
        "made": key.made,
        "figures": found,
        "kappa": agreed,
        "kappa by set": kappa,
        "remarks": named,
        "readers": watched,
    }
    return page.report("score", TITLE[key.mode], blocks, values)


def about(key: Key, readers: Sequence[Reader]) -> str:
    asked = len(key.trials)
    missing = [f"{r.name} {len(r.answers)}" for r in readers if len(r.answers) < asked]
    made = [f"{name}: {value}" for name, value in key.made.items() if value is not None]
    return page.passage("study_scores", key=key, readers=readers, missing=missing, made=made)


def care(watched: Mapping[str, Attentiveness], key: Key) -> Table:
    none = "none shown"
    columns: dict[str, dict[str, object]] = {
        name: {
            "repeats, same answer": one.same or none,
            "repeats, kappa": one.kappa or none,
            "repeats, opposite answers": len(one.opposite),
            "catch trials passed": one.caught or none,
            "seconds, median": one.seconds,
        }
        for name, one in watched.items()
    }
    return Table.of(page.passage("reader_care", pairs=key.mode == "pairs"), "", columns)


def remarks(
    key: Key, readers: Sequence[Reader], named: Mapping[str, dict[str, object]]
) -> list[Block]:
    """named: what remark_findings.measure found of each reader"""
    rows = [
        (trial.image, trial.truth, reader.name, str(reader.answers[trial.id].said), remark)
        for trial in key.trials
        for reader in readers
        if trial.id in reader.answers and (remark := reader.answers[trial.id].remark.strip())
    ]
    header = ("image", "is", "reader", "said", "remark")
    blocks: list[Block] = [Table("Remarks.", header, rows)] if rows else []
    if rows and any(trial.findings for trial in key.trials):
        blocks.insert(0, Table.of(page.passage("reader_remarks"), "", named))
    return blocks
