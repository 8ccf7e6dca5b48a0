# %% [markdown]
# # 6. Attention
#
# How does the text get into the picture? At each place the U-Net asks all tokens of the prompt
# (lesson 7: pieces of words, then fillers that mark the end), and takes a weighted mean of them:
#
#     softmax(Q K^T / sqrt(d)) V                        (attention, arXiv:1706.03762, eq. 1)
#
# Q are the queries, one for each place; K and V are a key and a value for each token; d is their
# width. The softmax gives each place weights over the tokens, which sum to 1. This is
# **cross**-attention, from picture to text: `Attention` in [ldm/attention.py](../ldm/attention.py).
#
# The weights of one token, laid out over the places, are a map of where the model "looks" at it.
# DAAM (arXiv:2210.04885) adds them up over layers, heads (attentions side by side in a layer) and
# steps to explain pictures. We do so on phantoms (lesson 1), whose findings have known places.

# %%
import torch
from showing import MODEL, show
from torch.nn.functional import adaptive_avg_pool2d, interpolate

import ldm
from ldm import rng
from ldm.data import phantom
from ldm.drawing.word_maps import recorded, take_maps, word_map, word_places
from ldm.metrics.classification import wilson
from ldm.metrics.estimate import mean
from ldm.metrics.localization import cell_auc, pointing

N, TIMES = 24, [200, 400, 600, 800]
pipe = ldm.load(MODEL)
prompt = "phantom lung xray with pleural effusion"
seeds = range(900_030_000, 900_030_000 + N)  # no network was trained on them
given = phantom.render(phantom.sample_phantoms(seeds, ["pleural effusion"]))
twins = phantom.render(phantom.sample_phantoms(seeds, []))  # the same bodies without it


@torch.inference_mode()
def look(images: torch.Tensor) -> torch.Tensor:
    """[N, S, 8, 8]: how much each of 8 x 8 places looks at each of S tokens, mean over TIMES."""
    z, context, maps = pipe.encode_images(images), pipe.encode_each([prompt] * N), []
    for t in TIMES:
        eps = rng.gaussian(seed=0, indices=range(N), step=t, shape=z.shape[1:])
        with recorded(pipe.unet) as found:
            times = torch.full((N,), t)
            pipe.unet(pipe.schedule.add_noise(z, eps, times), times, context)
        maps.append(take_maps(found, (8, 8), N))
    return torch.stack(maps).mean(dim=0)


maps, on_twins = look(given.images), look(twins.images)
places = word_places(pipe.text, prompt)  # [(word, places of its tokens)]
last = places[-1][1][-1]
tokens = {"start": [0], **dict(places), "fillers": list(range(last + 1, 77))}
for name, own in tokens.items():
    print(f"{name}: {100 * maps[:, own].sum(dim=1).mean():.1f} % of the weight")
# > start: 51.1 % of the weight
# > phantom: 1.5 % of the weight
# > lung: 1.6 % of the weight
# > xray: 3.0 % of the weight
# > with: 1.5 % of the weight
# > pleural: 4.0 % of the weight
# > effusion: 10.2 % of the weight
# > fillers: 27.1 % of the weight

# %% [markdown]
# Half of the weight goes to the start token, which has read nothing, and a quarter to the fillers.
# The words share the rest.
#
# ## Is the map on the finding?
#
# A phantom's mask says where its fluid is. A place is inside if half of it is, or else the one with
# most fluid. **AUC**: of all pairs of a place inside and one outside, the share in which the map is
# higher inside (1 is perfect, 0.5 is chance). **Pointing**: the share of phantoms whose highest
# place is inside. Beside them stand rivals that know no word: the brightness of the picture, and
# the mean mask of the *other* phantoms, which looks at no picture. And the map of the twin, the
# same chest without fluid: a map that shows the finding should not be right there.

# %%
shares = adaptive_avg_pool2d(given.masks["pleural effusion"].float(), (8, 8))
masks = (shares >= shares.amax(dim=(1, 2), keepdim=True).clamp(max=0.5)).numpy()
named = [place for _, own in places[-2:] for place in own]
others = (shares.sum(dim=0) - shares) / (N - 1)
candidates = {
    "the words pleural effusion": word_map(maps, named),
    "the word lung": word_map(maps, places[1][1]),
    "the fillers": maps[:, last + 1 :].mean(dim=1),
    "the fillers, on the twin": on_twins[:, last + 1 :].mean(dim=1),
    "brightness": adaptive_avg_pool2d(given.images[:, 0], (8, 8)),
    "mean mask of the others": others,
}
for name, each in candidates.items():  # figures with 95 % intervals
    scored = [(m.double().numpy(), mask) for m, mask in zip(each, masks, strict=True)]
    hits = sum(pointing(*pair) for pair in scored)
    area = mean([cell_auc(*pair) for pair in scored])
    print(f"{name}: AUC {area.show('.2f')}, pointing {wilson(hits, N).show('.2f')}, n = {N}")

shown = [given.images[:2], interpolate(shares[:2, None], (128, 128)) * 2 - 1]
for each in candidates.values():
    small = each[:2, None] - each[:2, None].amin(dim=(2, 3), keepdim=True)
    shown.append(interpolate(small / small.amax(dim=(2, 3), keepdim=True), (128, 128)) * 2 - 1)
titles = ["phantom", "mask", "the words", "lung", "fillers", "on the twin", "brightness", "others"]
pictures = torch.stack(shown, dim=1).flatten(0, 1)  # a row for each phantom
show("06_attention", pictures, titles * 2, columns=8)
# > the words pleural effusion: AUC 0.27 (0.23 to 0.32), pointing 0.00 (0.00 to 0.14), n = 24
# > the word lung: AUC 0.33 (0.28 to 0.39), pointing 0.04 (0.01 to 0.20), n = 24
# > the fillers: AUC 0.88 (0.84 to 0.91), pointing 0.42 (0.24 to 0.61), n = 24
# > the fillers, on the twin: AUC 0.85 (0.81 to 0.89), pointing 0.33 (0.18 to 0.53), n = 24
# > brightness: AUC 0.84 (0.81 to 0.86), pointing 0.04 (0.01 to 0.20), n = 24
# > mean mask of the others: AUC 0.94 (0.91 to 0.96), pointing 0.58 (0.39 to 0.76), n = 24
# > runs/lessons/06_attention.png

# %% [markdown]
# The map of "pleural effusion" lies where the effusion is **not**: its AUC is below chance, as that
# of "lung" is. The fillers, which belong to no word but have read them all, do lie on the fluid.
# That looks like an explanation, until one compares: they do so nearly as well on the twin, which
# has no fluid; by AUC brightness alone is not far behind, and the mean mask of other phantoms is no
# worse. Most of the map says where fluid usually lies, not where this fluid lies. A map that looks
# right is no evidence before it beats a rival that cannot know.
#
# ## Questions
#
# **Q1** Why can a place not simply look at nothing? **Q2** How can a word act where its weight is
# low? **Q3** DAAM reports good maps of nouns for Stable Diffusion. Is this lesson a contradiction?
#
# **A1** Softmax weights sum to 1, so they must go somewhere. The start token is the same in every
# prompt: a place that needs no text can look there.
#
# **A2** Through the fillers, which have read it; and by a large V, which the weights do not show.
#
# **A3** No. That model is larger, looks from many more places, and its nouns are objects, not a
# shade at the base of a lung. The lesson is to measure beside rivals.
#
# **Go further**: `python evaluate.py word-maps --quick` does this for three findings, with more
# controls.
