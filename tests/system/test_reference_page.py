"""The API page in a real browser: requests use the session of the login."""

from pathlib import Path

from playwright.sync_api import Browser, expect

from app.schemas.access import Role
from tests.system.pages import Site, enter_key, opened


def test_image_is_inspected_from_the_page(
    browser: Browser, keyed: Site, tiny_images: dict[str, list[bytes]], tmp_path: Path
) -> None:
    picture = tmp_path / "part.png"
    picture.write_bytes(tiny_images["good"][0])
    with opened(browser, keyed.url) as page:
        page.goto("/login")
        enter_key(page, keyed.key(Role.ADMIN, "reads the reference"))
        expect(page.locator("#state")).to_be_visible()
        page.goto("/docs")
        operation = page.locator("#operations-predict-predict_v1_models__category__predict_post")
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_placeholder("category").fill("tiny")
        operation.locator("input[type=file]").set_input_files(picture)
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table")
        expect(answer.locator("tbody .response-col_status").first).to_contain_text("200")
        expect(answer).to_contain_text('"decision"')
        expect(operation.locator(".curl").first).to_contain_text("/v1/models/tiny/predict")
