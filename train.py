"""Train one part of the model:  python train.py configs/scratch_vae.yaml [train.steps=100 ...]"""

from __future__ import annotations

import argparse
import json
import logging
import sys

from ldm.config import load_run


def main() -> int:
    parser = argparse.ArgumentParser(description="Train what a config says; run again to resume.")
    parser.add_argument("config", help="a YAML file, e.g. configs/scratch_unet.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.steps=100")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        run = load_run(args.config, args.overrides)

        from ldm.adapt.pretrain import build_method
        from ldm.train.loop import Trainer

        method = build_method(run)
        weights = Trainer(run, method, method.draw).fit()
    except (ValueError, OSError, FloatingPointError) as e:
        print(f"train.py: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps({"weights": str(weights), "out": run.train.out}) if args.json else weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
