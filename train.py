"""Train or adapt a model:  python train.py configs/scratch_vae.yaml [train.steps=100 ...]"""

import logging
import sys

from ldm.system import cli
from ldm.training.training_run import build_method, finished, load_run


def main(arguments: list[str] | None = None) -> int:
    parser = cli.Parser("train.py", "Train as a config says; the same command again resumes.")
    parser.add_argument("config", help="a YAML file, e.g. configs/scratch_unet.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    parser.add_argument("--json", action="store_true", help="print one JSON object: paths, seconds")
    options = parser.parse_args(arguments)
    run = load_run(options.config, options.overrides)
    cli.check_folder(run.train.out)
    watch = cli.Stopwatch()
    with watch("imports"), cli.no_garbage():  # after the settings were read: these take seconds
        from ldm.system import devices
        from ldm.training.trainer import Trainer
    group = devices.join_processes()
    if not group.leads:
        logging.getLogger().setLevel(logging.WARNING)
    weights = finished(run)
    if weights is None:
        with watch("data"):
            method = build_method(run)
        with watch("training"):
            weights = Trainer(run, method, group).fit()
    devices.leave_processes()
    if group.leads:
        print(cli.report([weights], watch, options.json))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main, "train.py", logging.INFO))
