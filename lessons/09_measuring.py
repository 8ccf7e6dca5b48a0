# %% [markdown]
# # 9. Measuring
#
# How good are a model's pictures? Here three figures are measured where the truth is known. First
# the usual distance of two sets. Each picture becomes a vector of features, of which each set has a
# mean mu and a covariance S, and
#
#     d^2 = |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))       (FID, arXiv:1706.08500, eq. 6)
#
# where tr sums a matrix's diagonal. FID takes the features from Inception, a network for
# photographs. Ours are principal components: the directions in which phantoms (lesson 1) vary most.
# The code is `frechet` in [ldm/metrics/fid.py](../ldm/metrics/fid.py). We deal phantoms into two
# halves. Both come from one source, so the true distance is 0. We measure it with n pictures of
# each half, averaged over all disjoint groups of n.

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm
from showing import save

from ldm.data import phantom
from ldm.metrics.classification import auc
from ldm.metrics.fid import frechet
from ldm.metrics.nearest_images import audit

seeds = range(900_010_000, 900_011_000)  # no network was trained on them
chests = phantom.render(phantom.sample_phantoms(seeds), size=64).images
pixels = chests.flatten(1).double().numpy()
# the rows of V^T of a singular value decomposition are the components, largest first
components = np.linalg.svd(pixels[:200] - pixels[:200].mean(axis=0), full_matrices=False)[2][:50]
x, y = pixels[200:600] @ components.T, pixels[600:] @ components.T  # features, [400, 50] each
counts, found = [25, 50, 100, 200, 400], []
for n in counts:
    found.append(np.mean([frechet(x[i : i + n], y[i : i + n]) for i in range(0, 400, n)]))
    print(f"n = {n:3d}: distance {found[-1]:5.1f}")
others = phantom.sample_phantoms(range(900_012_000, 900_012_200), ["pleural effusion"])
sick = phantom.render(others, size=64).images
to_sick = frechet(x[:200], sick.flatten(1).double().numpy() @ components.T)
print(f"n = 200, to phantoms that all have an effusion: {to_sick:.1f}")
figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
axis.plot(counts, found, "o-", label="to the same source")
axis.plot(200, to_sick, "rs", label="to phantoms with an effusion")
axis.set(xlabel="n, pictures of each set", ylabel="Fréchet distance", xticks=counts, ylim=(0, None))
axis.legend()
save("09_measuring", figure)
# > n =  25: distance 180.6
# > n =  50: distance  96.3
# > n = 100: distance  53.0
# > n = 200: distance  26.1
# > n = 400: distance  13.5
# > n = 200, to phantoms that all have an effusion: 42.7
# > runs/lessons/09_measuring.png

# %% [markdown]
# The distance is **biased**: two finite groups never have quite the same mean and covariance, and
# every difference counts as positive. It about halves as n doubles. At n = 100 phantoms are farther
# from their own source than they are from sick chests at n = 200. So a distance without its n says
# nothing, and two models are compared at equal n.
#
# ## The AUC of few pictures
#
# Take all pairs of a picture with a finding and one without. The AUC is the share of pairs in which
# the first gets the higher score: 1 is perfect, 0.5 is chance. Let scores be Gaussian, and higher
# by one standard deviation with the finding. The difference of two scores then has mean 1 and
# variance 2, so the truth is Phi(1 / sqrt 2), Phi being the Gaussian's cumulative distribution. We
# run one experiment a thousand times, each with new scores.

# %%
truth = norm.cdf(0.5**0.5)
print(f"true AUC: {truth:.3f}")
for n in (20, 200):
    noise, labels = np.random.default_rng(n), np.arange(n) % 2
    runs = [auc(noise.standard_normal(n) + labels, labels) for _ in range(1000)]
    low, high = np.quantile([run.value for run in runs], [0.025, 0.975])
    held = np.mean([run.low <= truth <= run.high for run in runs])
    print(f"the first run: {runs[0]}; 95 % of all runs: {low:.2f} to {high:.2f}")
    print(f"share of the intervals that hold the truth: {held:.3f}")
# > true AUC: 0.760
# > the first run: 0.840 (0.654 to 1.000, n = 20); 95 % of all runs: 0.54 to 0.94
# > share of the intervals that hold the truth: 0.912
# > the first run: 0.745 (0.676 to 0.814, n = 200); 95 % of all runs: 0.69 to 0.82
# > share of the intervals that hold the truth: 0.951

# %% [markdown]
# With n = 20 one and the same reader can look useless or excellent. The interval (DeLong's, from
# each score's share of won pairs) gives warning. It should hold the truth in 95 % of the runs, and
# with few pictures does so less often.
#
# ## Copies
#
# A model that repeats its training pictures gets a splendid distance. So one looks for the nearest
# training picture, pixel by pixel. What is nearer than 99 % of unseen pictures are to theirs is
# called a copy. We plant twenty copies, changed a little.

# %%
train, unseen = chests[200:600, 0].numpy(), chests[600:, 0].numpy()
for name, pictures in {
    "copies with noise": train[:20] + 0.1 * np.random.default_rng(0).standard_normal((20, 64, 64)),
    "copies moved by 1 pixel": np.roll(train[:20], 1, axis=2),
    "copies moved by 2 pixels": np.roll(train[:20], 2, axis=2),
    "new phantoms": chests[:20, 0].numpy(),
}.items():
    result = audit(pictures, train, unseen)  # Euclidean distances of pixels in [-1, 1]
    print(f"{name}: distance {np.median(result.samples.distance):.1f}, called {result.copies}")
print(f"called a copy: nearer than {result.threshold:.1f}")
# > copies with noise: distance 6.4, called 1.000 (0.839 to 1.000, n = 20)
# > copies moved by 1 pixel: distance 10.7, called 0.450 (0.258 to 0.658, n = 20)
# > copies moved by 2 pixels: distance 16.4, called 0.200 (0.081 to 0.416, n = 20)
# > new phantoms: distance 16.6, called 0.000 (0.000 to 0.161, n = 20)
# > called a copy: nearer than 10.2

# %% [markdown]
# Noise hides no copy. A shift by one pixel hides half, by two most: those lie as far off as new
# phantoms. "No copies found" holds for such copies as the search can see. Plant some, as here, to
# know which.
#
# ## Questions
#
# **Q1** A paper gives a distance of 20 at n = 5,000, another 25 at n = 500. Which model is better?
# **Q2** Is a small distance to the training set proof of a good model? **Q3** What finds a shifted
# copy?
#
# **A1** Nobody can know. The second has the larger bias; draw as many pictures of both and see.
#
# **A2** No. A model that copies has the smallest, and a rare finding may be missing unnoticed.
#
# **A3** Shifted training pictures beside the others, or a space in which shifts matter less.
#
# **Go further**: `python evaluate.py memorization phantoms:100:450 --train phantoms:500:0` looks in
# three spaces; half of these phantoms are among the training pictures, the others are new.
