"""Models, thresholds, regions, the shift report: an engineer's work with a real server and browser."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from flows.fastflow.bundle import bundle, models_folder
from tests.conftest import picture, png
from tests.support.server import Server
from tests.system.pages import PHONE, drop, inspect, opened, serious, site, zone_by_day

pytestmark = pytest.mark.slow
Images = dict[str, list[bytes]]
HOME = "/v1/models/tiny"
LATER = "20990101T000000-abcdef"
PAGE = "/models/tiny"


@dataclass(frozen=True)
class Served:
    """A server with two versions of the tiny model and a reviewed history; the version that serves."""

    url: str
    client: httpx.Client
    version: str

    def rates(self) -> dict[str, Any]:
        """Return the current thresholds."""
        answer: dict[str, Any] = self.client.get(f"{HOME}/thresholds").json()
        return answer


def add_version(models: Path, report: bytes) -> None:
    """Publish the tiny model as a later version with an HTML report."""
    copy = shutil.copytree(models_folder.resolve(models, "tiny"), models / "tiny" / LATER)
    (copy / "report/report.html").write_bytes(report)
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    manifest["files"]["report/report.html"] = hashlib.sha256(report).hexdigest()
    (copy / bundle.MANIFEST).write_text(json.dumps(manifest | {"version": LATER}))


@pytest.fixture(scope="module")
def served(
    tiny_bundle_store: Path, tiny_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    models = shutil.copytree(tiny_bundle_store, folder / "models")
    add_version(models, b"<title>as made</title><p>Trained.</p><script>document.title = 'ran'</script>")
    with site(Server(models, folder)) as made:
        client = made.client
        for verdict in ("good", "defect"):
            for i, data in enumerate(tiny_images[verdict]):
                answer = inspect(client, data, part_id=f"P-{verdict}-{i}", station=f"line-{i % 2}")
                said = {"verdict": verdict, "expected_revision": 0}
                reviewed = client.post(f"/v1/inspections/{answer['inspection_id']}/reviews", json=said)
                assert reviewed.is_success, reviewed.text
        version = client.get(HOME).json()["active"]
        yield Served(made.url, client, version)


def ready(page: Page) -> Locator:
    """Open the category's page and return the slider once it is ready."""
    page.goto(PAGE)
    slider = page.get_by_label("Good parts that may be rejected")
    expect(slider).to_be_enabled()
    return slider


def save(page: Page, reason: str | None = None) -> None:
    """Save the chosen threshold, which is a large change."""
    if reason is not None:
        page.locator("#threshold-reason").fill(reason)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#confirm-text")).to_contain_text("inspections, ")
    page.get_by_role("button", name="Save anyway").click()


def drawable(page: Page, station: str) -> Locator:
    """Choose the region to draw; return the stage once it shows the image and the region."""
    page.get_by_label("Applies to").select_option(station)
    stage = page.get_by_role("application", name="Image to draw the region on")
    expect(stage).not_to_have_attribute("aria-busy", "true")
    return stage


def test_threshold_is_moved_with_a_reason(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        slider = ready(page)
        button = page.get_by_role("button", name="Save", exact=True)
        expect(page.locator("#threshold-rate")).to_have_text("10% (set)")
        expect(button).to_be_disabled()
        slider.focus()
        page.keyboard.press("End")
        expect(page.locator("#threshold-rate")).to_have_text("20%")
        expect(slider).to_have_attribute(
            "aria-valuetext", re.compile(r"^20%, (not )?certified, \d+ decisions")
        )
        expect(page.locator("#threshold-window")).to_contain_text("inspections: 16 since")
        expect(page.locator('[data-figure="overkill"]')).to_have_text(re.compile(r"^[\d.]+%$"))
        expect(page.locator('[data-note="escape"]')).to_contain_text("between")

        # Without a reason nothing is saved.
        button.click()
        assert served.rates()["target_fpr"] is None
        save(page, "Line 3 rejects too little")
        expect(page.locator("#threshold-said")).to_have_text("Saved: 20% of good parts may be rejected.")
        expect(page.locator("#threshold-rate")).to_have_text("20% (set)")
        assert served.rates()["target_fpr"] == 0.2
        [*_, last] = served.client.get("/v1/reports/shift").json()["changes"]
        assert (last["action"], last["reason"]) == ("model.thresholds", "Line 3 rejects too little")
        reset = {"target_fpr": None, "reason": "as before"}
        served.client.patch(f"{HOME}/thresholds", json=reset, headers={"If-Match": "*"})


def test_conflicting_threshold_is_shown_before_it_is_overwritten(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        slider = ready(page)
        slider.focus()
        page.keyboard.press("End")
        theirs = {"target_fpr": 0.05, "reason": "Audit of the line"}
        changed = served.client.patch(f"{HOME}/thresholds", json=theirs, headers={"If-Match": "*"})
        assert changed.is_success
        save(page, "Mine")
        wrong = page.locator("#threshold-error")
        expect(wrong).to_contain_text("from 10% to 5%")
        expect(wrong).to_contain_text("Audit of the line")
        assert served.rates()["target_fpr"] == 0.05
        # What was wanted is still chosen, and can be saved now that what is there was seen.
        expect(page.locator("#threshold-rate")).to_have_text("20%")
        save(page)
        expect(page.locator("#threshold-said")).to_contain_text("20%")
        assert served.rates()["target_fpr"] == 0.2


def click(stage: Locator, *places: tuple[float, float]) -> None:
    """Click at fractions of the stage's width and height."""
    box = stage.bounding_box()
    assert box is not None
    for x, y in places:
        stage.click(position={"x": box["width"] * x, "y": box["height"] * y})


def test_region_is_drawn_by_mouse_and_by_key_and_removed(browser: Browser, served: Served) -> None:
    region = f"{HOME}/region?station=line-1"
    with opened(browser, served.url) as page:
        ready(page)
        stage = drawable(page, "line-1")
        expect(page.locator("#region-status")).to_contain_text("No region is set. Shown is a good image")
        click(stage, (0.1, 0.1), (0.5, 0.1), (0.5, 0.9), (0.1, 0.9), (0.1, 0.1))
        expect(page.locator("#region-list li")).to_have_count(1)

        # A second one by keys: right and up of the middle, then round and closed.
        stage.focus()
        for key in ("ArrowRight", " ", *["ArrowRight"] * 15, " ", *["ArrowDown"] * 15, " ", "f"):
            page.keyboard.press(key)
        expect(page.locator("#region-list li")).to_have_count(2)
        expect(page.locator("#announce")).to_have_text("Polygon 2 closed")
        page.locator("#region-reason").fill("The conveyor is in the picture")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved. A region is set")
        kept = served.client.get(region).json()
        assert kept["image"] == {"width": 64, "height": 64}
        corners = kept["polygons"][0]
        for corner, wanted in zip(corners, [(6.4, 6.4), (32, 6.4), (32, 57.6), (6.4, 57.6)], strict=True):
            assert corner == pytest.approx(wanted, abs=0.4)
        assert len(kept["polygons"][1]) == 3
        assert 0.35 < kept["share"] < 0.4

        # It is shown again, a corner can be dragged, and it can be taken away.
        ready(page)
        stage = drawable(page, "line-1")
        expect(page.locator("#region-list li")).to_have_count(2)
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.1)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2, steps=5)
        page.mouse.up()
        expect(page.locator("#region-save")).to_be_enabled()
        page.locator("#region-reason").fill("More of the rim")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("Saved.")
        moved = served.client.get(region).json()["polygons"][0][0]
        assert moved == pytest.approx([12.8, 12.8], abs=0.6)
        page.locator("#region-reason").fill("The conveyor was covered")
        page.get_by_role("button", name="Remove region").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(page.locator("#region-status")).to_contain_text("No region is set.")
        assert served.client.get(region).status_code == 404


def test_region_is_drawn_on_an_uploaded_image(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        page.get_by_label("Applies to").select_option("*")
        page.locator("#region-name").fill("line-9")
        upload = {"name": "part.png", "mimeType": "image/png", "buffer": png(picture(1, defect=True))}
        page.locator("#region-file").set_input_files(upload)  # type: ignore[arg-type]
        page.get_by_role("button", name="Whole image").click()
        page.locator("#region-reason").fill("To begin with")
        page.get_by_role("button", name="Save region").click()
        expect(page.locator("#region-status")).to_contain_text("100% of the image counts")
        kept = served.client.get(f"{HOME}/region?station=line-9").json()
        assert kept["polygons"] == [[[0, 0], [64, 0], [64, 64], [0, 64]]]
        broken = {"name": "text.png", "mimeType": "image/png", "buffer": b"no picture"}
        page.locator("#region-file").set_input_files(broken)  # type: ignore[arg-type]
        expect(page.locator("#region-error")).to_contain_text("text.png cannot be shown")


def test_version_is_activated_and_rolled_back(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        ready(page)
        row = page.get_by_role("row", name=re.compile(LATER))
        row.get_by_role("button", name="Activate").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(LATER)
        dialog.get_by_role("button", name="Cancel").click()
        assert served.client.get(HOME).json()["active"] == served.version
        row.get_by_role("button", name="Activate").click()
        dialog.get_by_label("Reason").fill("finds more scratches")
        page.keyboard.press("Enter")
        expect(row).to_contain_text("in service")
        assert served.client.get(HOME).json()["active"] == LATER
        page.get_by_role("button", name="Back to the previous version").click()
        dialog.get_by_label("Reason").fill("rejects too many")
        dialog.get_by_role("button", name="Go back").click()
        expect(page.get_by_role("row", name=re.compile(served.version))).to_contain_text("in service")
        assert served.client.get(HOME).json()["active"] == served.version
        entries = served.client.get("/v1/audit", params={"action": "model.activate"}).json()["entries"]
        assert [one["detail"]["reason"] for one in entries if one["outcome"] == "done"] == [
            "rejects too many",
            "finds more scratches",
        ]


def test_version_learns_from_reviews(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        page.goto(PAGE)
        section, learn = page.locator("#learning"), page.get_by_role("button", name="Learn", exact=True)
        expect(section).to_contain_text("A run uses 8 images reviewed as defective and 8 reviewed as good")
        expect(learn).to_be_enabled()
        page.locator("#learning-since").fill("2099-01-01")
        expect(section).to_contain_text("at least 5 images reviewed as defective")
        expect(learn).to_be_disabled()
        page.locator("#learning-since").fill("")
        learn.click()
        expect(section.get_by_role("progressbar")).to_be_visible()
        expect(section).to_contain_text("has learned from 8 defects and 30 good images", timeout=60_000)
        expect(section).to_contain_text("A version has learned from these reviews already")
        expect(learn).to_be_disabled()
        section.get_by_role("button", name="Activate").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("then decides on all parts of tiny")
        dialog.get_by_role("button", name="Cancel").click()
        assert served.client.get(HOME).json()["active"] == served.version
        page.reload()
        row = page.locator(".versions tr", has_text="learned from 8 reviewed defects")
        row.get_by_role("link").click()
        expect(page.locator("main")).to_contain_text("From 8 reviewed defects, at")
        made = page.url.rpartition("/")[2]
        assert served.client.delete(f"{HOME}/versions/{made}").status_code == 204


def test_shift_report_is_printed(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        page.goto("/report")
        expect(page.get_by_role("heading", name="tiny")).to_be_visible()
        kept = served.client.get("/v1/inspections", params={"limit": 100}).json()["inspections"]
        assert len(kept) >= 16
        expect(page.locator(".figures dd").first).to_have_text(str(len(kept)))
        page.locator(".rejects img").first.scroll_into_view_if_needed()
        page.wait_for_load_state("networkidle")
        page.emulate_media(media="print")
        expect(page.locator(".pages")).to_be_hidden()
        expect(page.locator("#shift")).to_be_hidden()
        data = page.pdf(prefer_css_page_size=True)
        assert data.startswith(b"%PDF-")
        sizes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)
        assert sizes
        for width, height in sizes:  # A4 in points
            assert (float(width), float(height)) == pytest.approx((595, 842), abs=1.5)


def test_another_time_of_the_report_is_chosen(browser: Browser, served: Served) -> None:
    with opened(browser, served.url, timezone_id=zone_by_day()) as page:
        page.goto("/report")
        page.get_by_label("Shift").select_option("yesterday")
        page.wait_for_url(re.compile("from="))
        expect(page.get_by_text("There are no inspections in this period.")).to_be_visible()
        assert page.locator("#from").input_value().endswith("T00:00")
        page.get_by_label("Shift").select_option("today")
        expect(page.locator("#to")).to_have_value(re.compile("T00:00$"))
        page.locator("#from").fill("2030-01-02T00:00")
        page.locator("#to").fill("2030-01-01T00:00")
        page.get_by_role("button", name="Show").click()
        assert page.locator("#from").evaluate("field => field.validationMessage") != ""
        page.get_by_label("Shift").select_option("yesterday")
        expect(page.locator("#from")).not_to_have_value("2030-01-02T00:00")
        expect(page.get_by_text("There are no inspections in this period.")).to_be_visible()


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("de", "dark")])
def test_pages_are_accessible_and_long_names_fit(
    browser: Browser, served: Served, tiny_images: Images, language: str, scheme: Any
) -> None:
    phone: dict[str, Any] = {"viewport": PHONE, "is_mobile": True, "has_touch": True}
    size = {} if language == "en" else phone
    long = "W" * 200
    inspection = inspect(served.client, tiny_images["defect"][0], part_id=long, station=long)
    said = {"verdict": "good", "expected_revision": 0, "reviewer": long}
    shown = f"/inspections/{inspection['inspection_id']}"
    assert served.client.post(f"/v1{shown}/reviews", json=said).is_success
    operators = ("/", f"/search?part_id={long}", shown, "/inspect", "/scores", "/login", "/inspections/none")
    with opened(browser, served.url, color_scheme=scheme, locale=language, **size) as page:
        for path in (*operators, "/products", PAGE, f"{PAGE}/versions/{LATER}", f"/report?station={long}"):
            page.goto(path)
            if path == "/":
                expect(page.locator("#state")).to_have_attribute("data-state", "live")
            if path == shown:
                expect(page.locator('[data-rate="reviewed"]')).not_to_contain_text("…")
            if path == "/inspect":
                drop(page, "part.png", tiny_images["defect"][0])
                expect(page.locator("#result")).to_be_visible()
            if path == PAGE:
                expect(page.locator("#threshold-slider")).to_be_enabled()
                expect(page.locator("#region-status")).not_to_be_empty()
            assert serious(page) == [], path
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, path
            assert page.locator("html").get_attribute("lang") == language


def test_audit_sample_is_reviewed_without_its_decisions(
    browser: Browser, served: Served, tiny_images: Images
) -> None:
    with opened(browser, served.url) as page:
        page.goto(PAGE)
        page.get_by_label("Share").select_option("100%")
        page.locator("#audit-reason").fill("pilot")
        page.get_by_role("button", name="Save share").click()
        expect(page.locator("#audit-said")).to_have_text("Saved.")
        _, newer = (inspect(served.client, data, station="audit") for data in tiny_images["defect"][:2])
        page.goto("/?station=audit")
        page.get_by_role("link", name="Audit sample: 2").click()
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_contain_text("Audit sample")
        assert serious(page) == []
        page.get_by_text("Name and note").click()
        page.get_by_label("Note").fill("scratch")
        page.get_by_role("button", name="Defect").click()
        expect(heading).to_contain_text("Reject")
        expect(page.locator("#next")).to_be_focused()
        said = served.client.get(f"/v1/inspections/{newer['inspection_id']}").json()
        assert (said["audit"], said["review"]["verdict"]) == (True, "defect")
        page.keyboard.press("n")
        expect(heading).to_contain_text("Audit sample")
        page.goto(PAGE)
        expect(page.locator('#audit [data-rate="audit"]')).to_have_text("0 good, 1 defective, 1 to review")
        assert serious(page) == []
