# %% [markdown]
# # 8. A new finding from ten films
#
# `weights/base.safetensors` has never seen a pleural effusion. Can ten films teach it one? Chambon
# et al. (arXiv:2210.04133) asked this of Stable Diffusion. Four ways, from few weights to all:
#
# - **textual inversion** (arXiv:2208.01618) learns a vector for one new word, and no weight;
# - **LoRA** learns a product of two thin matrices beside each projection of the attention:
#
#       h = W x + (alpha / r) B A x             (arXiv:2106.09685, eq. 3 and section 4.1)
#
#   W is a projection's matrix [C', C], x what it projects, h the result. A [r, C] and B [C', r] are
#   learned; the rank r is 8 here, and so is the scale alpha. B starts at zero;
# - **fine-tuning** learns all weights of the U-Net on the ten films;
# - **prior preservation** (DreamBooth, arXiv:2208.12242, eq. 2) does so, and at the same time
#   learns the model's own pictures of "a phantom lung xray", so that it does not forget what those
# are.
#
# We run LoRA, for half a minute, and read what the others gave from a longer study.

# %%
import json
import tempfile
from pathlib import Path

import torch
from showing import BASE, ROOT, show

import ldm
from ldm.judging.judge import load_judge
from ldm.metrics.estimate import mean
from ldm.pipeline import Sampling
from ldm.training.trainer import Trainer
from ldm.training.training_run import build_method, load_run
from ldm.weights import adapters

config = ROOT / "configs" / "lora.yaml"  # five phantoms without a finding, five with an effusion
given = ["train.steps=200", "train.sample_every=0", "train.device=cpu", f"model.path={BASE}"]
before, after = ldm.load(BASE), ldm.load(BASE)
with tempfile.TemporaryDirectory() as folder:
    given += [f"train.out={Path(folder, 'lora')}", f"data.cache={Path(folder, 'cache')}"]
    run = load_run(config, given)
    weights = Trainer(run, build_method(run)).fit()
    print(f"LoRA: {weights.stat().st_size / 1e6:.2f} MB")
    adapters.apply(after, loras=[str(weights)])
print(f"U-Net: {4 * sum(p.numel() for p in before.unet.parameters()) / 1e6:.2f} MB")
# > LoRA: 0.27 MB
# > U-Net: 15.95 MB

# %% [markdown]
# ## What was learned?
#
# Twice the same noise, with and without the new words. A judge, a network trained to call findings,
# scores the pictures: do the words add anything to its logit for an effusion?

# %%
judge = load_judge(ROOT / "weights" / "judge.safetensors")
effusion = judge.config.findings.index("pleural effusion")
N, PLAIN = 10, "a photo of a lung xray"
asked = [PLAIN, PLAIN + " with a visible pleural effusion"]
sampling = Sampling(0, 10, guidance=2, height=128, width=128)
shown, contrast = [], []
for name, pipe in (("before", before), ("after", after)):
    plain, words = (pipe.draw([prompt] * N, range(N), sampling) for prompt in asked)
    with torch.inference_mode():
        added = judge(words)[:, effusion] - judge(plain)[:, effusion]
    print(f"{name}: the words add {mean(added).show('.1f')} to the logit, n = {N}")
    contrast.append(127.5 * plain.std(dim=(1, 2, 3)))
    shown += [plain[:3], words[:3]]
grown = mean(contrast[1] - contrast[0])
print(f"plain pictures, same noise: contrast grew by {grown.show('.1f')} grey levels")
titles = [f"{name}, {words}" for name in ("before", "after") for words in ("plain", "effusion")]
show("08_adaptation", torch.cat(shown), [title for title in titles for _ in range(3)])
# > before: the words add 1.3 (1.0 to 1.6) to the logit, n = 10
# > after: the words add -0.3 (-1.2 to 0.6) to the logit, n = 10
# > plain pictures, same noise: contrast grew by 5.3 (1.6 to 9.0) grey levels
# > runs/lessons/08_adaptation.png

# %% [markdown]
# LoRA learned in 200 steps how the ten films *look*: dark lungs, sharp ribs, more contrast. The
# finding it did not learn: the words add nothing that this many pictures could show. Before, they
# added something, although the base never saw an effusion; perhaps "visible" and "pleural" are near
# to words of other sick chests, or some labels of its films were wrong. Had we seen such a gain
# after training alone, we would have counted it as success. So every experiment needs its "before".
#
# ## The others, from the recorded study
#
# 400 steps each, n = 200 pictures. AUC of the judge for the effusion prompt against prompts for
# *other* findings in the same words: 0.5 is "no more effusion than with those". Copies: the share
# of pictures nearer to a film of the training than 99 % of unseen films are; a model that copies
# nothing has about 0.01. `object_lung` is a new word, `unet_no_findings` all weights on five films
# without a finding, `unet` on all ten, `unet_prior` with prior preservation. The commands are in
# [docs/adaptation.md](../docs/adaptation.md).

# %%
study = json.loads((ROOT / "docs" / "adaptation.json").read_text(encoding="utf-8"))[
    "phantoms, guidance 2"
]
for name in ("base", "object_lung", "lora", "unet_no_findings", "unet", "unet_prior"):
    row = {key: value.partition(", n")[0] for key, value in study[name].items()}
    print(f"{name}: AUC {row['AUC, other findings']})")
    print(f"    copies {row.get('copies, pixels', '(not asked')})")
# > base: AUC 0.624 (0.547 to 0.701)
# >     copies (not asked)
# > object_lung: AUC 0.416 (0.337 to 0.496)
# >     copies 0.015 (0.005 to 0.043)
# > lora: AUC 0.553 (0.473 to 0.633)
# >     copies 0.040 (0.020 to 0.077)
# > unet_no_findings: AUC 0.496 (0.416 to 0.577)
# >     copies 0.240 (0.186 to 0.304)
# > unet: AUC 0.745 (0.678 to 0.813)
# >     copies 0.025 (0.011 to 0.057)
# > unet_prior: AUC 0.703 (0.632 to 0.775)
# >     copies 0.050 (0.027 to 0.090)

# %% [markdown]
# ## Questions
#
# **Q1** B starts at zero. What does the model draw in step 0 of LoRA? **Q2** Which row of the table
# learned the finding, and which learned its films by heart? **Q3** Did prior preservation pay?
#
# **A1** What the base draws, to the bit: W x + 0. Start both matrices at random, and training
# begins at another, broken model.
#
# **A2** `unet`, with all weights, has the highest AUC, though its interval overlaps that of the
# base. `unet_no_findings` copies most. A new word can only name what the model can draw already:
# with it, less effusion is drawn than by prompts for other findings.
#
# **A3** Not in this table, neither in AUC nor in copies; but it is meant to keep the old, which
# these do not ask. Chambon et al. found it to help. A negative result stays in the table.
#
# **Go further**: `python train.py configs/unet.yaml`
