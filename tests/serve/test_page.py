"""The page in a real browser, without a display (extra `browser`, and a Chromium on the PATH)."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser as chromium
import numpy as np
import pytest
from browser import PATIENCE
from PIL import Image
from running_server import RunningServer

from imagen_jax.io.png_metadata import read_metadata
from imagen_jax.serve import spans

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium.opened() as found:
        yield found


@pytest.fixture
def running(quick) -> Iterator[RunningServer]:
    found = RunningServer(quick.imagen)
    yield found
    found.end()


@pytest.fixture
def page(browser, running) -> Iterator[Any]:
    context = browser.new_context(accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    asked: list[str] = []
    problems: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    opened.goto(f"{running.address}/")
    expect(opened.locator("#size option")).not_to_have_count(0)
    yield opened
    context.close()
    refused = "Failed to load resource"  # what the browser says of each status of 400 or more
    assert [line for line in problems if not line.startswith(refused)] == []
    local = (running.address, "data:", "blob:")
    assert [url for url in asked if not url.startswith(local)] == []


def download(page: Any, tmp_path: Path) -> bytes:
    with page.expect_download() as waiting:
        page.get_by_text("Download").first.click()
    waiting.value.save_as(tmp_path / "image.png")
    return (tmp_path / "image.png").read_bytes()


def test_sampling_history_permalink_and_download(page, running, tmp_path: Path) -> None:
    page.fill("#prompt", "a large red circle")
    page.fill("#seed", "7")
    page.fill("#n", "2")
    page.press("#prompt", "Control+Enter")
    expect(page.locator("figure.done")).to_have_count(2)
    assert page.inner_text("#status") == "done"
    saved = download(page, tmp_path)
    assert read_metadata(saved)["prompt"] == "a large red circle"
    assert page.inner_text("#history") == "a large red circle · seed 7"
    page.reload()
    expect(page.locator("#seed")).to_have_value("7")
    assert page.input_value("#prompt") == "a large red circle"
    page.click("#go")
    expect(page.locator("figure.done")).to_have_count(2)
    again = download(page, tmp_path)
    assert again == saved


def test_partial_images_are_shown_and_cancelling_ends_them(page, running, monkeypatch) -> None:
    monkeypatch.setattr(spans, "SECONDS", 1e-9)  # each step by itself, which takes longer
    page.fill("#prompt", "a star")
    page.fill("#num_inference_steps", "1000")
    page.click("#go")
    page.wait_for_selector("figure.partial img")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("cancelled")
    assert page.locator("figure").count() == 0
    page.wait_for_timeout(500)
    while running.engine._open or not running.engine.is_idle:
        page.wait_for_timeout(50)


def test_a_dropped_file_is_read_back_and_edited_with_a_mask(page, tmp_path: Path) -> None:
    page.fill("#prompt", "a small blue star")
    page.fill("#seed", "9")
    page.click("#go")
    page.wait_for_selector("figure.done")
    saved = download(page, tmp_path)
    page.fill("#prompt", "")
    page.set_input_files("#file", tmp_path / "image.png")
    expect(page.locator("#prompt")).to_have_value("a small blue star")
    page.wait_for_selector("#canvas")
    box = page.locator("#canvas").bounding_box()
    page.evaluate("document.getElementById('brush').value = 96")
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, y)
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] - 2)
    page.mouse.up()
    page.fill("#seed", "11")
    page.click("#go")
    expect(page.locator("figure.done")).to_have_count(2)
    edited = download(page, tmp_path)
    assert read_metadata(edited)["has_mask"]
    first, second = (np.asarray(Image.open(io.BytesIO(x))) for x in (saved, edited))
    np.testing.assert_array_equal(first[:, :4], second[:, :4])
    assert (first[:, 6:] != second[:, 6:]).any()


def test_errors_are_said(page) -> None:
    page.evaluate("document.getElementById('form').noValidate = true")
    page.fill("#num_inference_steps", "5000")
    page.route("**/v1/images/generations", lambda route: route.continue_())
    page.click("#go")
    page.wait_for_selector("#status.bad")
    assert "num_inference_steps=5000: at most 1000 here" in page.inner_text("#status")


def test_a_token_is_asked_for(browser, quick) -> None:
    guarded = RunningServer(quick.imagen, tokens=("a-token-of-many-letters",))
    opened = browser.new_page()
    opened.goto(f"{guarded.address}/")
    opened.wait_for_selector("#token", timeout=PATIENCE)
    opened.fill("#token", "a-token-of-many-letters")
    opened.press("#token", "Tab")
    expect(opened.locator("#size option")).not_to_have_count(0)
    opened.close()
    guarded.end()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, running, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(f"{running.address}/")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    colour = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme]
    context.close()
