"""The page in a real browser, by keyboard alone, from the start to a scored result.

Skipped where there is no Chromium with its driver (apt-get install chromium chromium-driver).
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser
from readers import key_of, make, score
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study."""
    return make(tmp_path_factory.mktemp("browser"), 6, repeats=3, catch=2)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Browser]]:
    """Starts a browser, always with the same profile; all are closed at the end."""
    opened: list[Browser] = []

    def begin() -> Browser:
        opened.append(Browser(tmp_path / "profile", tmp_path / "saved"))
        return opened[-1]

    yield begin
    for browser in opened:
        browser.driver.quit()


def test_a_session_by_keyboard_is_resumed_and_scored(
    made: Path, tmp_path: Path, start: Callable[[], Browser]
) -> None:
    """A reader who knows the key answers all, the browser being closed half-way with a remark
    begun; the file that is saved at the end scores as a perfect reader's."""
    trials, half = key_of(made)["trials"], 8
    browser = start()

    def answer(first: int, last: int) -> None:
        for place in range(first, last):
            assert browser.text("#status") == f"Image {place + 1} of {len(trials)}"
            browser.press("r" if trials[place]["truth"] == "real" else "f", "5", Keys.ENTER)

    browser.open(made / "study.html")
    browser.press("A-1", Keys.ENTER)  # the focus is in the field for the code
    answer(0, half)
    browser.press("u", "m", "rib 3, f5")
    time.sleep(2.2)  # answers are kept at once, remark and time once a second
    browser.driver.quit()

    browser = start()
    browser.open(made / "study.html")
    browser.press("A-1", Keys.ENTER)
    assert browser.text("#status") == f"Image {half + 1} of {len(trials)}"
    chosen = browser.run("return document.querySelector('[aria-pressed=true]').dataset.answer")
    assert chosen == "unsure"
    answer(half, len(trials))
    assert "Thank you" in browser.text("#done")
    saved = browser.download()
    assert saved["answers"][half]["remark"] == "rib 3, f5"
    assert saved["answers"][half]["seconds"] >= 1  # those before it was closed count
    assert browser.driver.get_log("browser") == []

    (tmp_path / "a.json").write_text(json.dumps(saved))
    scored = score(made, tmp_path / "a.json", out=tmp_path / "s")
    found = scored["figures"]["A-1"] | scored["readers"]["A-1"]
    for figure in ("sensitivity, unsure as real", "specificity, unsure as real", "AUC"):
        assert found[figure]["value"] == 1
    assert found["caught"]["value"] == found["same"]["value"] == 1
    assert found["answered"] == len(trials)


def test_answers_move_to_another_browser(
    made: Path, tmp_path: Path, start: Callable[[], Browser]
) -> None:
    """Saved half-way with a key, read in a browser that never saw the study: it goes on there.
    Files that are no answers, of another study or changed are refused in words."""
    browser = start()
    browser.open(made / "study.html")
    browser.press("B", Keys.ENTER, "r", "2", Keys.ENTER, "f", "4", Keys.ENTER, "f", "e")
    saved = browser.download()
    assert [(a["answer"], a["confidence"]) for a in saved["answers"]] == [("real", 2), ("fake", 4)]
    browser.driver.quit()
    shutil.rmtree(tmp_path / "profile")

    browser = start()
    browser.open(made / "study.html")
    field = browser.driver.find_element(By.ID, "file")
    other = [saved["answers"][0] | {"id": "0" * 12}]
    for name, content, message in (
        ("text.json", "no", "holds no answers"),
        ("other.json", json.dumps(saved | {"study": "0"}), "another study"),
        ("changed.json", json.dumps(saved | {"answers": other}), "it was changed"),
    ):
        (tmp_path / name).write_text(content)
        field.send_keys(str(tmp_path / name))
        browser.wait_for(lambda message=message: message in browser.text("#trouble"))
    (tmp_path / "good.json").write_text(json.dumps(saved))
    field.send_keys(str(tmp_path / "good.json"))
    browser.wait_for(lambda: browser.text("#status").startswith("Image 3 of"))
    browser.press("1", Keys.ENTER, "e")  # "fake" was chosen before
    third = browser.download()["answers"][2]
    assert (third["answer"], third["confidence"]) == ("fake", 1)


def test_keys_change_what_is_on_the_screen(made: Path, start: Callable[[], Browser]) -> None:
    """Zoom, pan, window, level and inversion each change the canvas; 0 brings it back; the grey
    levels shown are those of the file; unanswered images cannot be left."""
    browser = start()
    browser.open(made / "study.html")
    browser.press("C", Keys.ENTER)
    first = browser.wait_for(lambda: len(browser.canvas()) > 2000 and browser.canvas())
    looks = {first}
    for keys in ("+", Keys.ARROW_LEFT, "c", "b", "x"):
        browser.press(keys)
        looks.add(browser.canvas())
    assert len(looks) == 6
    assert "zoom 1.3, window 240, level 120" in browser.text("#view")
    browser.press("0")
    assert browser.canvas() == first
    browser.press(Keys.ENTER)
    assert "an answer is missing" in browser.text("#status")
    browser.press("f", Keys.ENTER)
    assert "how sure you are is missing" in browser.text("#status")
    browser.press("3", "m", "r", Keys.ESCAPE)  # "r" is a remark here
    assert browser.run("return session.open.answer + session.open.remark") == "faker"
    middle = browser.run(
        "const at = (study.size >> 1) * (study.size + 1);"
        "const shown = viewer.panes[0].image.getContext('2d').getImageData("
        "  study.size >> 1, study.size >> 1, 1, 1).data[0];"
        "return [shown, atob(study.trials[0].pixels).charCodeAt(at)]"
    )
    assert isinstance(middle, list)
    assert middle[0] == middle[1]


def test_the_page_can_be_used_without_a_mouse_or_sight(
    made: Path, start: Callable[[], Browser]
) -> None:
    """Every control has a name, Tab reaches all of them in turn, and each shows that it has the
    focus; all keys are listed; the page asks for no network."""
    browser = start()
    browser.open(made / "study.html")
    browser.press("D", Keys.ENTER)
    controls = browser.driver.find_elements(By.CSS_SELECTOR, "#reading button, #reading textarea")
    assert all(control.accessible_name for control in controls)
    assert [c.aria_role for c in controls].count("button") == 11
    seen = set()
    for _ in range(30):
        browser.press(Keys.TAB)
        seen.add(browser.run("return document.activeElement.outerHTML.slice(0, 60)"))
        style = browser.run(
            "const s = getComputedStyle(document.activeElement);"
            "return document.activeElement === document.body || s.outlineStyle"
        )
        assert style is True or style != "none"
    usable = browser.run(
        "return [...document.querySelectorAll('#reading button, #reading textarea')]"
        ".filter((each) => !each.disabled).map((each) => each.outerHTML.slice(0, 60))"
    )
    assert isinstance(usable, list)
    assert set(usable) <= seen
    browser.press("h")
    listed = browser.text("#help .keys")
    for word in ("real", "how sure", "next image", "zoom", "contrast", "brighter", "invert"):
        assert word in listed
    loaded = browser.run("return performance.getEntriesByType('resource').length")
    assert loaded == 0


def test_pairs_are_scored_by_one_key(
    model: Path, tmp_path: Path, start: Callable[[], Browser]
) -> None:
    """Two canvases under one view; scores of 1 to 5 come back from the saved file."""
    out = make(tmp_path, 4, repeats=1, catch=1, model=model)
    browser = start()
    browser.open(out / "study.html")
    browser.press("P", Keys.ENTER)
    shown = browser.driver.find_elements(By.TAG_NAME, "canvas")
    assert [canvas.is_displayed() for canvas in shown] == [True, True]
    for trial in key_of(out)["trials"]:
        browser.press("1" if trial["truth"] == "catch" else "4", Keys.ENTER)
    (tmp_path / "p.json").write_text(json.dumps(browser.download()))
    scored = score(out, tmp_path / "p.json", out=tmp_path / "s")
    assert scored["figures"]["P"]["mean"]["value"] == 4
    assert scored["readers"]["P"]["caught"]["value"] == 1
