# %% [markdown]
# # 7. Text
#
# A prompt steers the pictures because the denoiser gets it as a further input. Training takes a
# picture z with its caption y, adds noise eps of level t, and minimizes
#
#     || eps - eps_theta(z_t, t, tau_theta(y)) ||^2        (LDM, arXiv:2112.10752, eq. 3)
#
# tau_theta, the text tower, turns the words y into vectors. The U-Net never sees the words, only
# these vectors. So what the tower does not tell apart, no picture can show. The tower here is that
# of CLIP (arXiv:2103.00020) made small, [ldm/clip.py](../ldm/clip.py).
#
# First the text is cut into tokens: whole frequent words, pieces of rare ones. Byte-pair encoding
# found them: it starts from letters and joins the most frequent pair, again and again. `</w>` marks
# the end of a word.

# %%
import torch
from showing import MODEL, show
from torch.nn.functional import cosine_similarity

import ldm
from ldm.clip import tokenizer
from ldm.judging.judge import load_judge
from ldm.metrics.classification import wilson
from ldm.pipeline import Sampling

pipe = ldm.load(MODEL)
prompt = "lung xray with pleural effusion"
tokens = pipe.text.tokenize([prompt])
names = [tokenizer().decoder[int(i)] for i in tokens[0]]
with torch.inference_mode():
    vectors = pipe.encode_text([prompt])
print("tokens:", *names[:10], "...")
print(f"{len(names)} positions, {names.count('<end_of_text>')} of them end of text")
print("what the U-Net gets:", list(vectors.shape), "(prompts, positions, width)")
# > tokens: <start_of_text> lung</w> x ray</w> with</w> ple ural</w> ef fusion</w> <end_of_text> ...
# > 77 positions, 68 of them end of text
# > what the U-Net gets: [1, 77, 128] (prompts, positions, width)

# %% [markdown]
# Every prompt takes the same number of positions: a longer one is cut off, a shorter one is filled
# with the token for the end. The fillers are not empty. Each vector is computed from its own token
# and all tokens **before** it, none after it, so every filler has read the whole prompt.
#
# ## How near is another prompt?
#
# We join the vectors of all positions to one long vector and take the cosine of the angle between
# two prompts: 1 if they are equal, 0 if they have nothing in common. The second number counts the
# positions at the start that did not change at all.

# %%
for other in (
    "lung xray, with pleural effusion",  # a comma
    "lung xray with effusion pleural",  # another order of words
    "lung xray without pleural effusion",  # the opposite
    "lung xray with cardiomegaly",  # another finding: an enlarged heart
    "lung xray, no findings",
):
    with torch.inference_mode():
        changed = pipe.encode_text([other])
    near = cosine_similarity(vectors.flatten(), changed.flatten(), dim=0)
    same = torch.isclose(vectors, changed, atol=1e-5).all(dim=2)[0].int().cumprod(dim=0).sum()
    print(f"cosine {near:.3f}, first {same} positions equal: {other}")
# > cosine 0.994, first 4 positions equal: lung xray, with pleural effusion
# > cosine 0.995, first 5 positions equal: lung xray with effusion pleural
# > cosine 0.996, first 4 positions equal: lung xray without pleural effusion
# > cosine 0.612, first 5 positions equal: lung xray with cardiomegaly
# > cosine 0.539, first 4 positions equal: lung xray, no findings

# %% [markdown]
# For this tower the opposite is no farther from the prompt than a comma is. "Without pleural
# effusion" is a text about effusion; "no findings", which means nearly the same, is far away. But
# the U-Net could make much of a small difference. So we let it draw.
#
# ## What is drawn
#
# Twelve pictures for each of three prompts, from the same noise. We add the word "phantom", since
# the judge, a small network that looks for findings, sees fluid well in phantoms (lesson 1) and
# badly in films; its [card](../weights/README.md) has the numbers. Shares have 95 % intervals.

# %%
judge = load_judge(MODEL / "judge.safetensors")
finding = judge.config.findings.index("pleural effusion")
sampling = Sampling(seed=0, steps=10, guidance=2, height=128, width=128)
drawn, titles = [], []
for words in (" with pleural effusion", " without pleural effusion", ", no findings"):
    drawn.append(pipe.draw([f"phantom lung xray{words}"] * 12, range(12), sampling))
    with torch.inference_mode():
        called = int((judge(drawn[-1])[:, finding] > 0).sum())
    print(f"phantom lung xray{words}: effusion in {called}, {wilson(called, 12)}")
    titles += [words.strip(" ,")] * 6
for i, words in ((1, "without pleural effusion"), (2, "no findings")):
    print(f"{words}: {127.5 * (drawn[i] - drawn[0]).abs().mean():.1f} grey levels from the first")
show("07_text", torch.cat([pictures[:6] for pictures in drawn]), titles)
# > phantom lung xray with pleural effusion: effusion in 11, 0.917 (0.646 to 0.985, n = 12)
# > phantom lung xray without pleural effusion: effusion in 11, 0.917 (0.646 to 0.985, n = 12)
# > phantom lung xray, no findings: effusion in 1, 0.083 (0.015 to 0.354, n = 12)
# > without pleural effusion: 1.5 grey levels from the first
# > no findings: 10.8 grey levels from the first
# > runs/lessons/07_text.png

# %% [markdown]
# "Without pleural effusion" draws effusions, as many as "with" does, and nearly the same pictures
# of them. Large models share the weakness: asked to choose between captions with and without a
# "no", CLIP and its kin are often no better than chance (arXiv:2501.09425). Captions say what a
# picture shows, hardly ever what it lacks. Those that this model learned from have "no" and
# "without" in two phrases alone, "no findings" and "without findings"
# (ldm/data/phantom/captions.py).
#
# ## Questions
#
# **Q1** Why are the first positions equal whatever comes later? **Q2** A radiology report says "no
# pneumothorax, no effusion". What happens if reports are used as captions? **Q3** How does one ask
# for a picture without something?
#
# **A1** A token sees itself and those before it. Equal beginnings give equal vectors.
#
# **A2** The word "effusion" then stands beside healthy chests, too, and says little unless the
# tower learns to read the "no". It is safer to train with the findings that are there.
#
# **A3** By a familiar phrase for what is there instead, such as "no findings", or by a negative
# prompt: guidance moves away from it (lesson 4).
#
# **Go further**: `python sample.py --prompt "phantom lung xray" --negative "pleural effusion"`
# draws with the finding as the negative prompt.
