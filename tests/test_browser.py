"""A lesson in a real browser: served as `make lab` does, run, and played with."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import tiny_course
from missing import chromium

from tools import notebooks
from tools.settings import ROOT

pytestmark = pytest.mark.browser

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
# The status bar of the application; the notebook's own indicator is idle too early,
# and Run All then meets a dialog that asks for a kernel.
IDLE = "text=/Python 3 .*\\| Idle/"
START, RUN = 90_000, 240_000  # milliseconds


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A copy of the course, so that running a lesson changes no tracked file."""
    root = tmp_path_factory.mktemp("browser") / "course"
    tiny_course.make(root)
    assert notebooks.main(["--root", str(root), "build"]) == 0
    for kind in ("notebooks", "exercises"):
        shutil.copytree(ROOT / kind, root / kind, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def lab(course):
    """The address of a JupyterLab started by the command behind `make lab`."""
    port, home = free_port(), course.parent / "home"
    private = {name: str(home / name.lower()) for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR",
    )}
    line = [sys.executable, str(ROOT / "tools/lab.py"), "--root", str(course)]
    log = open(course.parent / "lab.log", "w")  # noqa: SIM115
    process = subprocess.Popen(
        [*line, "--port", str(port), "--no-browser"],
        env=os.environ | private | {"JUPYTER_TOKEN": "test"},
        stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, Path(log.name))
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the command and the server it began
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(120):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer in a minute: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def chrome():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chrome):
    context = chrome.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(START)
    yield page
    context.close()


def open_and_run(page, lab: str, path: str) -> None:
    """Open a notebook, wait for its kernel, Run All, wait for the last cell."""
    page.goto(f"{lab}/lab/tree/{path}?token=test&reset")
    page.wait_for_selector(IDLE)
    page.click("li.lm-MenuBar-item >> text=Run")
    page.click(".lm-Menu-item >> text=/^Run All Cells$/")
    page.wait_for_function(
        """() => {
            const busy = [...document.querySelectorAll('.jp-InputPrompt')]
                .some(e => e.textContent.includes('[*]'));
            return !busy;
        }""",
        timeout=RUN,
    )
    page.wait_for_selector(IDLE, timeout=RUN)


def pictures(page) -> list[str]:
    """What the widgets show: every picture and every text in them."""
    return page.eval_on_selector_all(
        ".jupyter-widgets img, .jupyter-widgets .widget-html-content, "
        ".jupyter-widgets.widget-image",
        "all => all.map(e => (e.src || '') + e.innerText)",
    )


def errors(page) -> list[str]:
    return page.eval_on_selector_all(
        "[data-mime-type='application/vnd.jupyter.stderr'], "
        "[data-mime-type='application/vnd.jupyter.error']",
        "all => all.map(e => e.innerText)",
    )


def move_first_slider(page) -> None:
    """One step to the right, by keyboard: a drag depends on the layout."""
    handle = page.locator(".jupyter-widgets .noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    before = pictures(page)
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        """before => {
            const all = document.querySelectorAll(
                ".jupyter-widgets img, .jupyter-widgets .widget-html-content, "
                + ".jupyter-widgets.widget-image");
            const now = [...all].map(e => (e.src || '') + e.innerText);
            return JSON.stringify(now) !== JSON.stringify(before);
        }""",
        arg=before,
        timeout=30_000,
    )


def test_the_start_page_opens(page, lab):
    if not (ROOT / "notebooks/00_start_here.ipynb").exists():
        pytest.skip("lesson 00 is not built here: make notebooks LESSON=00")
    page.goto(f"{lab}/?token=test")
    # A tab that JupyterLab reopened may stand beside it, hidden.
    shown = ".jp-NotebookPanel:not(.lm-mod-hidden)"
    page.wait_for_selector(f"{shown} .jp-MarkdownOutput h1")
    assert "00_start_here" in page.inner_text(".lm-TabBar-tab.jp-mod-current")
    assert page.locator("text=/Would you like to (receive|get)/").count() == 0


def test_the_short_lesson_runs_and_its_widget_answers(page, lab):
    open_and_run(page, lab, "notebooks/03_legs.ipynb")
    assert any("3 cats" in text for text in pictures(page))
    move_first_slider(page)
    assert any("4 cats" in text for text in pictures(page))
    assert [text for text in errors(page) if "ZeroDivisionError" not in text] == []


def test_lesson_03_runs_and_its_figure_follows_the_slider(page, lab):
    if not (ROOT / "notebooks/03_rope.ipynb").exists():
        pytest.skip("lesson 03 is not built here: make notebooks LESSON=03")
    open_and_run(page, lab, "notebooks/03_rope.ipynb")
    assert errors(page) == []
    move_first_slider(page)
    assert errors(page) == []


def test_the_exercises_are_in_work(course, lab):
    """`make lab` filled work/ before it served."""
    expected = sorted(path.name for path in (course / "exercises").glob("*.ipynb"))
    assert sorted(path.name for path in (course / "work").glob("*.ipynb")) == expected
