"""Measure:  python evaluate.py text-encoders"""

import importlib
import json
import sys

from ldm.report.options import parse
from ldm.system import atomic, cli


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    cli.check_folder(options.out)
    watch = cli.Stopwatch()
    with watch("measuring"):
        from ldm.metrics.estimate import as_json  # imports numpy

        report = importlib.import_module(options.module).run(options)
    with atomic.whole_folder(options.out) as folder:
        for name, content in report.files.items():
            (folder / name).write_bytes(content)
    paths = [str(options.out / name) for name in report.files]
    values = as_json({**report.values, "paths": paths, "seconds": watch.rounded()})
    text = cli.printable("\n".join([report.text, *paths]))
    print(json.dumps(values) if options.json else text)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "evaluate.py"))
