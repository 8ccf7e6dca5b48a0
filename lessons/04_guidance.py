# %% [markdown]
# # 4. Guidance
#
# A network that was trained with and without text gives two answers for one noisy picture. Guidance
# goes from the one without text past the one with text:
#
#     eps = eps_empty + s (eps_text - eps_empty)      (arXiv:2207.12598, eq. 6, with s = 1 + w)
#
# s = 0 ignores the text, s = 1 is the plain answer, s > 1 exaggerates what the text changes. The
# code is `guide` in [ldm/guidance.py](../ldm/guidance.py): one function around the network. What
# does s buy, and what does it cost? We draw the same noise with and without an effusion in the
# text, and measure three things for each s (it takes half a minute):
#
# - **fidelity**: a judge, a network that was trained to call findings, scores the pictures. Does it
#   score those with "effusion" in the prompt higher? (AUC: 0.5 is chance, 1 is always.)
# - **variety**: how far two pictures of one prompt are apart, in grey levels of 255, and in the
#   judge's own features (the layer before its verdicts);
# - **contrast**: the standard deviation of a picture.

# %%
import torch
from showing import MODEL, ROOT, show
from torch import Tensor

import ldm
from ldm.judging.judge import load_judge
from ldm.metrics.classification import auc_of_readers
from ldm.pipeline import Sampling

pipe = ldm.load(MODEL)
judge = load_judge(ROOT / "weights" / "judge.safetensors")
effusion = judge.config.findings.index("pleural effusion")
N = 12  # pictures of each prompt
prompts = {"with": "phantom lung xray with pleural effusion", "none": "phantom lung xray"}


def draw(prompt: str, scale: float) -> Tensor:
    return pipe.draw([prompt] * N, range(N), Sampling(0, 10, guidance=scale, height=128, width=128))


def variety(x: Tensor) -> float:
    """The mean absolute difference of two rows of x [N, ...], over all pairs."""
    one, other = torch.combinations(torch.arange(N)).T
    return (x[one] - x[other]).abs().mean().item()


first, scales = [], (0.0, 1.0, 2.0, 6.0)
for scale in scales:
    pictures = {name: draw(prompt, scale) for name, prompt in prompts.items()}
    with torch.inference_mode():
        scores = torch.cat([judge(p)[:, effusion] for p in pictures.values()])
        apart = variety(judge.features(pictures["with"]))
    fidelity = auc_of_readers(scores[None], [True] * N + [False] * N)
    grey = 127.5 * pictures["with"]
    print(f"s = {scale:.0f}: AUC {fidelity.show('.2f')}, n = {fidelity.n}")
    print(f"       variety: {variety(grey):.1f} grey levels, {apart:.3f} in features")
    print(f"       contrast: {grey.std(dim=(1, 2, 3)).mean():.1f} grey levels")
    first.append(pictures["with"][:3])
titles = [f"s = {scale:.0f}" for scale in scales for _ in range(3)]
show("04_guidance", torch.cat(first), titles)
# > s = 0: AUC 0.50 (0.28 to 0.72), n = 24
# >        variety: 43.0 grey levels, 0.161 in features
# >        contrast: 54.4 grey levels
# > s = 1: AUC 0.88 (0.63 to 0.97), n = 24
# >        variety: 40.4 grey levels, 0.143 in features
# >        contrast: 56.0 grey levels
# > s = 2: AUC 0.99 (0.90 to 1.00), n = 24
# >        variety: 39.9 grey levels, 0.084 in features
# >        contrast: 58.7 grey levels
# > s = 6: AUC 1.00 (0.76 to 1.00), n = 24
# >        variety: 40.2 grey levels, 0.040 in features
# >        contrast: 67.1 grey levels
# > runs/lessons/04_guidance.png

# %% [markdown]
# At s = 0 both prompts draw the same pictures, so the AUC is chance by construction; it rises with
# s. The intervals of s = 1, 2 and 6 overlap: these are 12 pairs from the same noise (at an AUC of 1
# the lower end is that of 12 of 12). Variety is a warning. Grey levels hardly change, as pictures
# still differ in size and exposure; but contrast grows, so as a share of it variety falls. The
# judge's features see what you do in the picture: at s = 6 the three chests have the same large
# effusion on both sides. (Features of a judge that is sure also lie closer together, so they are no
# proof alone.) Which variety matters depends on the use, so a paper must say which it measured.
#
# ## Questions
#
# **Q1** How often does the network run for one step at s = 1, and at s = 2? **Q2** What is a
# negative prompt? **Q3** Is the judge a fair witness?
#
# **A1** Once, and twice (as one batch of twice the size). `--guidance-interval` saves a part of it:
# guidance helps at middle noise levels only (arXiv:2404.07724).
#
# **A2** Another text in the place of the empty one: eps goes away from it. It is a direction in the
# space of guesses, not a logical "not", which lesson 7 looks at.
#
# **A3** It was trained on phantoms and films that the model was trained on, too. Both may like the
# same shortcut. Lesson 9 has measures that need no judge.
#
# **Go further**: `python sample.py --prompt "lung xray with cardiomegaly" --guidance 4`
