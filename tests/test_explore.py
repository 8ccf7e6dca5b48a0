"""lessons/explore.py: the page holds what the book computes, and shows it in a real browser."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser
from conftest import assert_one_line
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from torch import Tensor

import ldm
from ldm import rng
from ldm.drawing import word_maps
from ldm.guidance import guide
from ldm.pictures import image_files
from ldm.pipeline import LatentDiffusion, Sampling
from ldm.samplers import DDIM, sample
from ldm.system import atomic, cli
from lessons import explore

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "explore.html"
# hostile: HTML, an attribute's end, a template's code
PROMPTS = ('effusion "><img src=x onerror=harm=1> {{7*7}}', "</script><script>harm=1</script>'")
SEEDS, GUIDANCES, STEPS = 2, [1.0, 3.0], 3


@pytest.fixture(scope="module")
def pipe(start: Path) -> LatentDiffusion:
    return ldm.load(start)


@pytest.fixture(scope="module")
def data(pipe: LatentDiffusion) -> dict[str, Any]:
    return explore.contents(pipe, PROMPTS, SEEDS, GUIDANCES, STEPS)


@pytest.fixture(scope="module")
def page(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explore.html"
    path.write_text(explore.html(data, "../"), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    browser = Browser(folder / "profile", folder / "saved")
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(opened: Browser, page: Path) -> Browser:
    opened.open(page)
    shown(opened, step=1, guidance=1, seed=0)
    return opened


def levels(uri: str) -> np.ndarray:
    """uint8 [H, W] of a strip"""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def shown(browser: Browser, **sliders: int) -> None:
    """Waits until the page shows this step, guidance and seed."""
    browser.wait_for(lambda: json.loads(browser.run("return document.body.dataset.shown || '0'")))
    browser.wait_for(
        lambda: json.loads(str(browser.run("return document.body.dataset.shown"))) == sliders
    )


def pixels(browser: Browser, name: str) -> np.ndarray:
    """uint8 [H, W, 4] of a canvas"""
    uri = browser.run(f"return document.getElementById('{name}').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(str(uri).partition(",")[2]))))


def alts(browser: Browser) -> list[str]:
    found = browser.driver.find_elements(By.CSS_SELECTOR, "[role=img]")
    return [str(each.get_attribute("aria-label")) for each in found]


def latents_of(run: dict[str, Any], shape: tuple[int, int, int]) -> np.ndarray:
    """[3, T, C, h, w] from a strip"""
    C, h, w = shape
    values = (levels(run["latents"]) / 127.5 - 1) * run["range"]
    return values.reshape(3, C, h, -1, w).transpose(0, 3, 1, 2, 4)


def test_the_latents_are_those_of_the_books_loop(
    pipe: LatentDiffusion, data: dict[str, Any]
) -> None:
    """x_t, eps and x0 of each step are those of `samplers.sample` with DDIM and `guide`, within
    half a grey level, and so are their sizes and the distances to the last x0."""
    shape, times = pipe.latent_shape(32, 32), pipe.timesteps(STEPS)
    context, empty = pipe.encode_each(PROMPTS), pipe.encode_each([""])
    runs = data["runs"][1][1]  # seed 1, guidance 3
    asked: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        asked[:] = [x_t, guide(pipe.predict_eps, context, empty, 3.0)(x_t, t)]
        return asked[1]

    x = rng.gaussian(1, [0, 0], -1, shape)
    with torch.inference_mode():
        steps = [
            torch.stack([*asked, step.x0])  # after the step: `asked` is of it
            for step in sample(DDIM(pipe.schedule), denoise, x, times)
        ]
    for b, run in enumerate(runs):
        expected = torch.stack([step[:, b] for step in steps], dim=1)  # [3, T, C, h, w]
        found = torch.from_numpy(latents_of(run, shape)).float()
        assert (found - expected).abs().max() <= run["range"] / 255 + 1e-4
        sizes = torch.tensor(run["rms"])
        torch.testing.assert_close(sizes, expected.square().mean((2, 3, 4)).sqrt())
        to_last = (expected[2] - expected[2, -1]).square().mean((1, 2, 3)).sqrt()
        torch.testing.assert_close(torch.tensor(run["distance"]), to_last)


def test_the_maps_are_the_cross_attention(pipe: LatentDiffusion, data: dict[str, Any]) -> None:
    """With guidance, too, the maps are the prompt's weights of each layer, head, step and token;
    over a prompt's tokens, its padding among them, they sum to 1."""
    how = Sampling(0, STEPS, "ddim", 3.0, height=32, width=32)
    with word_maps.recorded(pipe.unet) as layers:
        pipe.draw(PROMPTS, [0, 0], how)
    for b, run in enumerate(data["runs"][0][1]):
        side, tokens = run["side"], len(data["tokens"][b])
        strip = (levels(run["maps"]) / 255) ** 2
        found = strip.reshape(len(layers), run["heads"], side, STEPS, tokens, side)
        assert abs(found.sum(4) - 1).max() < 0.05  # roots are rounded to 1/255
        assert run["layers"] == [name.removesuffix(".blocks.0") for name in layers]
        for token in range(tokens - 1):
            expected = torch.stack([torch.stack(each) for each in layers.values()])[
                :, :, 2 + b, :, :, token
            ]  # [layers, T, N, L]
            ours = found[:, :, :, :, token].transpose(0, 3, 1, 2, 4).reshape(expected.shape)
            assert abs(np.sqrt(ours) - expected.sqrt().numpy()).max() <= 0.5 / 255 + 1e-4


def test_the_ready_made_page_is_up_to_date() -> None:
    """docs/explore.html has less than 8 MB, says synthetic, and was made with this template; its
    links lead to the lines that they name. If not:
    python -m lessons.explore --renew docs/explore.html --out docs/explore.html"""
    text = DOCS.read_text(encoding="utf-8")
    assert len(text.encode()) < 8e6
    assert text.count("<i>synthetic</i>") == 10
    assert f"lessons.explore {atomic.code_version(explore.TEMPLATE)}" in text
    links = re.findall(r'<a href="\.\./([^"#]+)#L(\d+)"\s+title="([^"]+)"', text)
    assert len(links) == len(re.findall("<a ", text)) == 10
    for file, number, code in links:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        assert unescape(code) in lines[int(number) - 1], (file, number)


def test_the_ready_made_page_ends_with_the_picture_that_draw_draws() -> None:
    """Its last predicted picture is pipe.draw's with the same settings, but for the JPEG: at most
    8 grey levels off, less than one on average; the schedule is the model's."""
    data, model = explore.read(DOCS), ldm.load(ROOT / "weights")
    seed, at, steps = 2, 2, len(data["times"])
    how = Sampling(seed, steps, "ddim", data["guidances"][at], height=128, width=128)
    drawn = model.draw(data["prompts"], [0, 0], how)
    for run, picture in zip(data["runs"][seed][at], drawn, strict=True):
        found = levels(run["picture"])[:, -128:].astype(int)
        difference = abs(found - image_files.to_integers(picture)[..., 0])
        assert difference.max() <= 8
        assert difference.mean() < 1
    assert data["times"] == model.timesteps(10).tolist()
    every = torch.arange(1000)
    for name, expected in (
        ("alpha_bar", model.schedule.alpha_bar),
        ("snr", model.schedule.snr(every)),
    ):
        found = torch.tensor(data[name], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("code", ["nothing like this", "return scaled("])
def test_a_link_needs_one_line(code: str) -> None:
    """Code that is not in the book, or there twice, stops the making of a page."""
    with pytest.raises(ValueError, match=r"schedule\.py has (0|[2-9]) lines"):
        explore.line_of("ldm/schedule.py", code)


def test_a_page_survives_its_own_template(data: dict[str, Any], page: Path) -> None:
    """`read` gives back what `html` was given: --renew changes the layout and nothing else."""
    assert explore.read(page) == json.loads(json.dumps(data))


def test_the_page_is_quiet_and_prompts_do_no_harm(browser: Browser) -> None:
    """No error in the console and nothing fetched; prompts full of HTML are shown as text."""
    assert browser.driver.get_log("browser") == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return typeof harm") == "undefined"
    assert browser.driver.find_elements(By.TAG_NAME, "img") == []
    assert PROMPTS[0] in browser.text("p.a")
    assert PROMPTS[1] in browser.text("p.b")
    assert "none shows a patient" in browser.text("main")
    assert browser.text("main").count("synthetic") >= 10


def test_sliders_change_the_pictures_by_keyboard(
    browser: Browser, data: dict[str, Any], pipe: LatentDiffusion
) -> None:
    """Tab reaches the three sliders, arrows move them, and each moves pictures, their text
    alternatives and the figures; these are the schedule's."""
    names = ("x_t-a", "eps-a", "x0-a", "picture-a", "seen-a", "map-a", "all-a")
    before = {name: pixels(browser, name) for name in names}, alts(browser)
    for name, key, now in (
        ("step", Keys.ARROW_RIGHT, {"step": 2, "guidance": 1, "seed": 0}),
        ("guidance", Keys.ARROW_LEFT, {"step": 2, "guidance": 0, "seed": 0}),
        ("seed", Keys.ARROW_RIGHT, {"step": 2, "guidance": 0, "seed": 1}),
    ):
        browser.press(Keys.TAB)
        assert browser.run("return document.activeElement.id") == name
        browser.press(key)
        shown(browser, **now)
        after = {name: pixels(browser, name) for name in names}, alts(browser)
        assert all((before[0][each] != after[0][each]).any() for each in names if each != "eps-a")
        assert len(after[1]) == len(before[1]) == 18
        assert all(a != b for a, b in zip(before[1][:14], after[1][:14], strict=True))
        before = after
    t = data["times"][2]
    ab = float(pipe.schedule.at(torch.tensor([t])))
    said = re.search(r"t = (\d+): ᾱ ([\d.e-]+), SNR ([\d.e+-]+)", browser.text("[role=status]"))
    assert said is not None
    assert int(said[1]) == t
    assert float(said[2]) == pytest.approx(ab, rel=5e-3)  # three digits are shown
    assert float(said[3]) == pytest.approx(ab / (1 - ab), rel=5e-3)
    run = data["runs"][1][0][0]
    latents = latents_of(run, pipe.latent_shape(32, 32))[:, 2, 0]  # of step 3 channel 0
    for name, x in zip(("x_t-a", "eps-a", "x0-a"), latents.clip(-3, 3), strict=True):
        tile = pixels(browser, name)[:8, :8].astype(int)
        orange = tile[..., 0] - tile[..., 2]  # red - blue: -160 at -3, 0 at 0, 200 at 3
        assert abs(orange - x / 3 * np.where(x < 0, 160, 200)).max() <= 2
    strip = levels(run["picture"])[:, 64:96].astype(int)
    assert abs(pixels(browser, "picture-a")[..., 0] - strip).max() <= 2  # two JPEG decoders
    assert f"RMS {run['rms'][0][2]:.2f}" in browser.text("#x_t-a + figcaption")
    assert browser.driver.get_log("browser") == []


def test_tokens_are_chosen_by_key_and_by_click(browser: Browser, data: dict[str, Any]) -> None:
    """Arrow keys move along the tokens, a click takes one, and layer and head one map of many:
    the large map shows its weights from the darkest to the brightest."""
    assert [e.text for e in browser.driver.find_elements(By.CSS_SELECTOR, "#tokens-a label")] == (
        data["tokens"][0]
    )
    chosen = "return document.querySelector('#tokens-a input:checked').value"
    first = int(str(browser.run(chosen)))
    before = pixels(browser, "map-a")
    browser.run("document.querySelector('#tokens-a input:checked').focus()")
    browser.press(Keys.ARROW_LEFT)
    assert int(str(browser.run(chosen))) == first - 1
    browser.wait_for(lambda: (pixels(browser, "map-a") != before).any())
    browser.driver.find_element(By.CSS_SELECTOR, "#tokens-a label").click()
    assert browser.run(chosen) == "0"
    for name in ("layer", "head"):
        browser.driver.find_element(By.ID, name).send_keys(Keys.ARROW_DOWN)
    run, tokens = data["runs"][0][1][0], len(data["tokens"][0])
    side = run["side"]
    strip = levels(run["maps"])[:side].reshape(side, STEPS, tokens, side)
    weights = (strip[:, 1, 0] / 255) ** 2  # the first layer and head, step 2, "start"
    browser.wait_for(lambda: f"largest {weights.max():.3f}" in browser.text("#map-a + figcaption"))
    assert f"mean {weights.mean():.3f}" in browser.text("#map-a + figcaption")
    light = pixels(browser, "map-a")[..., :3].astype(int).sum(-1)
    assert (np.argsort(light.ravel()) == np.argsort(weights.ravel())).all()
    assert f"layer {run['layers'][0]}, head 1" in "".join(alts(browser))


def test_play_goes_to_the_last_step(browser: Browser) -> None:
    """The button plays the steps that are left and stops at the last one."""
    browser.driver.find_element(By.ID, "play").send_keys(Keys.ENTER)
    shown(browser, step=2, guidance=1, seed=0)
    assert browser.wait_for(lambda: browser.run("return playing === null"))
    assert browser.run("return document.getElementById('play').ariaPressed") == "false"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser: Browser, mode: str) -> None:
    """360 px wide nothing overflows; the page follows the mode, and all text has contrast 4.5."""
    do = browser.driver.execute_cdp_cmd
    screen = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    do("Emulation.setDeviceMetricsOverride", screen)
    scheme = {"name": "prefers-color-scheme", "value": mode}
    do("Emulation.setEmulatedMedia", {"features": [scheme]})
    try:
        assert browser.run("return document.documentElement.scrollWidth") == 360
        colours = browser.run(
            "const card = getComputedStyle(document.querySelector('.card')).backgroundColor;"
            "return ['p', '.note', '.a b', '.b b', 'i'].map((each) =>"
            "  [getComputedStyle(document.querySelector(each)).color, card])"
        )
    finally:
        do("Emulation.clearDeviceMetricsOverride", {})
        do("Emulation.setEmulatedMedia", {"features": []})
    assert isinstance(colours, list)
    for text, ground in colours:
        a, b = luminance(text), luminance(ground)
        assert (a > b) == (mode == "dark")
        assert (max(a, b) + 0.05) / (min(a, b) + 0.05) >= 4.5  # WCAG 2.1, 1.4.3


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2.1)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(f * p for f, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--guidance=1", "--guidance=2", "--guidance=3", "--guidance=4", "--guidance=5"], "four"),
        (["--steps", "11"], "steps"),
        (["--prompt", " "], "empty"),
        (["--renew", str(ROOT / "LICENSE")], "was not made by lessons.explore"),
        (["--prompt", "effusion " * 40], "tokens"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, one line, and no page."""
    out = ["--out", str(tmp_path / "page.html")]
    try:
        status = cli.run(lambda: explore.main([*arguments, *out]), "lessons.explore")
    except SystemExit as end:  # of the parser
        status = end.code
    assert status == 2
    assert_one_line(capsys.readouterr().err, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_makes_a_page(tmp_path: Path) -> None:
    """`python -m lessons.explore` draws with the built-in model; links lead from the page here."""
    out = tmp_path / "deep" / "page.html"
    few = ["--seeds", "1", "--guidance", "2", "--steps", "2", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "lessons.explore", *few], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    href = re.findall(r'href="([^"#]+)#L', out.read_text(encoding="utf-8"))[0]
    assert (out.parent / href).resolve().is_relative_to(ROOT / "ldm")
    assert explore.read(out)["guidances"] == [2.0]
