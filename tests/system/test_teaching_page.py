"""Teaching a product in a real browser, from an empty server and without a shell."""

import io
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.conftest import picture, png
from tests.support.server import Server
from tests.system.pages import drop_all, faultless, opened, serious, tab_to

logger = logging.getLogger(__name__)
Images = dict[str, list[bytes]]
JOB_MS = 300_000
TRAINING_MS = 1_800_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server without models, products or inspections."""
    (tmp_path / "models").mkdir()
    with Server(tmp_path / "models", tmp_path / "server") as server:
        yield server


class Steps:
    """The seconds that each step of a journey takes; `pytest -o log_cli=true` shows them."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def end(self, name: str) -> float:
        """Log how long a step took that begins with the end of the one before."""
        seconds = time.monotonic() - self._begun
        logger.warning("%6.1f s  %s", seconds, name)
        self._begun = time.monotonic()
        return seconds


@contextmanager
def line(server: Server, product: str, image: bytes) -> Iterator[None]:
    """Inspect an image all the time. After the first answer, none fails, and no version comes back."""
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def inspect() -> None:
        with server.client() as client:
            while not over.wait(0.2):
                answer = client.post(f"/v1/models/{product}/predict", params={"store": False}, content=image)
                if answer.is_success:
                    answers.append((200, answer.json()["model"]["version"]))
                elif answers:
                    answers.append((answer.status_code, answer.text))

    thread = threading.Thread(target=inspect)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert {status for status, _ in answers} == {200}, answers
    versions = [version for _, version in answers]
    assert versions == sorted(versions)  # their names begin with the time
    logger.warning("%d inspections meanwhile, by %d versions", len(answers), len(set(versions)))


def create(page: Page, name: str) -> None:
    """Create a product by keyboard alone, from the empty wall."""
    page.goto("/")
    tab_to(page, page.get_by_role("link", name="Teach your first product"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name of the product")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.locator("#now-state")).to_have_text("Nothing yet: it has no images.")


def choose(page: Page, files: Mapping[str, bytes], place: str = "#files") -> None:
    """Choose files by keyboard."""
    with page.expect_file_chooser() as chooser:
        tab_to(page, page.locator(place))
        page.keyboard.press("Enter")
    chooser.value.set_files(_payloads(files))


def _payloads(files: Mapping[str, bytes]) -> list[FilePayload]:
    return [FilePayload(name=name, mimeType="image/png", buffer=data) for name, data in files.items()]


def expect_decision(page: Page, decision: str, name: str) -> None:
    """Wait for a decision on a file, with its heatmap drawn."""
    expect(page.locator("#result")).to_contain_text(name)
    expect(page.locator("#result .verdict-line")).to_contain_text(decision)
    drawn = "(canvas) => canvas.getContext('2d').getImageData(9, 9, 1, 1).data[3]"
    assert page.locator("#result canvas").evaluate(drawn) == 255


def test_product_is_taught_by_keyboard(browser: Browser, server: Server, tiny_images: Images) -> None:
    with opened(browser, server.url) as page, faultless(page):
        create(page, "My part")
        assert page.url.endswith("/products/my-part")
        assert serious(page) == []
        with line(server, "my-part", tiny_images["good"][0]):
            choose(page, {f"{i:03}.png": png(picture(100 + i)) for i in range(12)})
            expect(page.locator("#grid li")).to_have_count(12)
            expect(page.locator("#result .verdict-line")).to_contain_text(
                re.compile("Pass|Reject"), timeout=JOB_MS
            )
            expect(page.locator("#now-state")).to_contain_text("model, from")
            expect(page.locator("#now-promise")).to_contain_text("at most 7.7%")
            expect(page.locator("#now-missing")).to_contain_text("until a full model guarantees 1%")
            assert serious(page) == []
            choose(page, {"scratched.png": tiny_images["defect"][0]}, "#try-file")
            expect_decision(page, "Reject", "scratched.png")
            _mark_and_undo(page)
            _train_compare_activate(page, server, tiny_images["defect"][1])
        choose(page, {"scratched.png": tiny_images["defect"][0]}, "#try-file")
        expect_decision(page, "Reject", "scratched.png")


def _mark_and_undo(page: Page) -> None:
    """Mark images by keys: exclude one, then two as defects of a kind; undo both."""
    tab_to(page, page.locator("#mark-kind"))
    page.keyboard.type("dent")
    tab_to(page, page.locator('#grid [tabindex="0"]'))
    page.keyboard.press("x")
    expect(page.locator("#grid .excluded")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#selected")).to_have_text("2 selected")
    assert serious(page) == []
    page.keyboard.press("d")
    expect(page.locator("#grid .defect")).to_have_text([re.compile("dent")] * 2)
    for count in (0, 0):
        page.keyboard.press("Control+z")
        expect(page.locator("#grid .defect")).to_have_count(count)
    expect(page.locator("#grid .good")).to_have_count(12)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert serious(page) == []
    page.keyboard.press("Escape")


def _train_compare_activate(page: Page, server: Server, defect: bytes) -> None:
    """Train with activation by hand, follow the job, compare its version, activate it with a reason."""
    takeover = page.get_by_label("New versions take over")
    page.locator("main").focus()
    tab_to(page, takeover)
    page.keyboard.press("ArrowDown")
    expect(takeover).to_have_value("manual")
    with server.client() as client:
        images = "/v1/products/my-part/images"
        form = {"file": ("bad.png", defect)}
        assert client.post(images, params={"label": "defect"}, files=form).is_success
    one_epoch = {"kind": "train", "product": "my-part", "settings": {"epochs": 1}}
    page.route("**/v1/jobs", lambda route: route.continue_(post_data=one_epoch), times=1)
    page.locator("main").focus()
    tab_to(page, page.get_by_role("button", name="Train now"))
    page.keyboard.press("Enter")
    training, comparison = (
        page.locator("#jobs li.job", has_text=kind) for kind in ("Training", "Comparison")
    )
    expect(training.get_by_role("progressbar")).to_be_visible()
    assert serious(page) == []
    expect(training).to_contain_text("Its version is not in service", timeout=JOB_MS)
    tab_to(page, page.locator("#version-list").get_by_role("button", name="Compare").first)
    page.keyboard.press("Enter")
    expect(comparison.get_by_role("table")).to_contain_text("0 of 1 (0%)", timeout=JOB_MS)
    expect(comparison).to_contain_text("Decisions that differ: 0")
    assert serious(page) == []
    page.locator("main").focus()
    tab_to(page, comparison.get_by_role("button", name="Activate"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_label("Reason")).to_be_focused()
    assert serious(page) == []
    page.keyboard.type("trained")
    page.keyboard.press("Enter")
    expect(page.locator("#now-state")).to_have_text("Full model, from 12 good images")
    expect(training).to_contain_text("Its version is in service")
    starter = page.locator("#jobs li.job", has_text="Starter")
    expect(starter).to_contain_text("Its version is not in service")


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.timeout(3600)
def test_bottle_is_taught_from_an_empty_server(browser: Browser, server: Server, shared_data: Path) -> None:
    bottle = shared_data / "mvtec/bottle"
    good = {path.name: path.read_bytes() for path in sorted((bottle / "train/good").iterdir())}
    broken = next((bottle / "test/broken_large").iterdir())
    first = dict(list(good.items())[:10])
    with opened(browser, server.url) as page, faultless(page):
        steps = Steps()
        create(page, "bottle")
        steps.end("create the product")
        with line(server, "bottle", good["000.jpg"]):
            drop_all(page, first)
            expect(page.locator("#result .verdict-line")).to_contain_text(
                re.compile("Pass|Reject"), timeout=JOB_MS
            )
            assert steps.end("drop 10 images; first decision and heatmap") < 20
            expect(page.locator("#now-state")).to_contain_text("model, from")
            drop_all(page, {name: data for name, data in good.items() if name not in first})
            expect(page.locator("#progress")).to_have_text("Added: 199.")
            steps.end("add the other 199")
            training = page.locator("#jobs li", has_text="Training")
            progress = re.compile(r"Epoch \d+ of \d+, \d+ (s|min) left")
            expect(training).to_contain_text(progress, timeout=TRAINING_MS)
            expect(training.get_by_role("progressbar")).to_be_visible()
            steps.end("the training shows its progress and the time left")
            expect(page.locator("#now-state")).to_have_text(
                "Full model, from 209 good images", timeout=TRAINING_MS
            )
            steps.end("the full model takes over")
        page.locator("#try-file").set_input_files(broken)
        expect_decision(page, "Reject", broken.name)
        steps.end("a broken bottle is rejected")


def test_broken_files_are_marked_and_others_added(
    browser: Browser, server: Server, tiny_images: Images
) -> None:
    good = tiny_images["good"][0]
    whole = io.BytesIO()
    Image.open(io.BytesIO(good)).save(whole, "JPEG")
    broken = {
        "empty.png": b"",
        "text.png": b"no image",
        "cut.png": good[: len(good) // 2],
        "cut.jpg": whole.getvalue()[:-200],
        "<b>name.png": b"\x89PNG\r\n\x1a\n",
    }
    with opened(browser, server.url) as page, faultless(page):
        create(page, "part")
        drop_all(page, {"first.png": good, **broken, "last.png": tiny_images["good"][1], "copy.png": good})
        expect(page.locator("#progress")).to_have_text("Added: 2. Already there: 1. Refused: 5.")
        expect(page.locator("#grid .name")).to_have_text(["last.png", "first.png"])
        expect(page.locator("#problems li")).to_have_text([re.compile(re.escape(name)) for name in broken])
        assert serious(page) == []


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["en-GB", "de-DE"])
def test_camera_images_and_states_of_the_page(
    browser: Browser, tiny_bundle_store: Path, tiny_images: Images, tmp_path: Path, locale: str
) -> None:
    options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with (
        Server(tiny_bundle_store, tmp_path) as server,
        closing(browser.browser_type.launch(executable_path=program, args=options)) as camera,
        opened(camera, server.url, locale=locale) as page,
        faultless(page),
    ):
        page.goto("/products")
        assert serious(page) == []
        page.locator("[data-teach]").click()
        page.wait_for_url("**/products/tiny")
        expect(page.locator("#version-list li")).to_have_count(1)
        assert serious(page) == []
        good = {f"{i}.png": data for i, data in enumerate(tiny_images["good"])}
        drop_all(page, {"broken.png": b"", **good})
        expect(page.locator("#grid li")).to_have_count(len(good))
        page.locator('[name="label"][value="defect"]').check()
        page.locator("#add-kind").fill("scratch")
        page.locator("#files").set_input_files(_payloads({"bad.png": tiny_images["defect"][0]}))
        expect(page.locator("#grid .defect")).to_contain_text("scratch")
        page.locator('[name="label"][value="good"]').check()
        page.locator("#camera-open").click()
        expect(page.locator("#shutter")).to_be_focused()
        page.keyboard.press("Space")
        expect(page.locator("#camera-said")).to_contain_text("1")
        assert serious(page) == []
        page.keyboard.press("Escape")
        expect(page.locator("#grid li")).to_have_count(len(good) + 2)
        page.locator('[data-try="defect"]').click()
        expect_decision(page, "", "bad.png")
        for summary in page.locator("#drop summary").all():
            summary.click()
        page.locator("#grid li").first.click()
        assert serious(page) == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert serious(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.locator('[data-act="open"]').click()
        assert serious(page) == []
        page.keyboard.press("Escape")
        page.locator("#delete").click()
        assert serious(page) == []
        page.locator("#confirm-reason").fill("a test")
        page.keyboard.press("Enter")
        page.wait_for_url("**/products")
        expect(page.locator("[data-teach]")).to_be_visible()  # its version stays
