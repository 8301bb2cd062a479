"""The report: self-contained, escaped, and consistent with the evaluation."""

import base64
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from flows.fastflow.calibration.calibrator import Calibrator
from flows.fastflow.detector import Detector
from flows.fastflow.imaging.decoder import read_image
from tests.flows.fastflow.manifests import rehash
from training.data.sample import Sample
from training.evaluation.report.run_report import write_report
from training.evaluation.scoring import score_test_set
from training.evaluation.summary import summarise

HOSTILE = '<script>alert("1")</script>&\''
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: its tags must close in order; what it would fetch is collected."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in {"src", "href", "srcset", "data", "action"}:
                self.sources.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(" ".join(data.split()))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, tiny_images: dict[str, list[bytes]]) -> list[Sample]:
    """Four good and four defective images in folders and files with names that would be scripts."""
    root = tmp_path_factory.mktemp("test")
    found = []
    for kind, defect in (("good", None), ("defect", HOSTILE)):
        folder = root / HOSTILE.replace("/", "_") / kind
        folder.mkdir(parents=True)
        for i, data in enumerate(tiny_images[kind][:4]):
            path = folder / f"<img src=x onerror=alert({i})>.png"
            path.write_bytes(data)
            mask = None
            if defect:
                mask = folder / f"{i}_mask.png"
                cv2.imwrite(str(mask), (read_image(path).min(2) > 200).astype(np.uint8) * 255)
            found.append(Sample(path, defect, mask))
    return found


Write = Callable[..., str]


@pytest.fixture(scope="module")
def write(bundle: Path, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Write:
    def written(samples: list[Sample], bundle: Path = bundle, detector: Detector = detector) -> str:
        evaluation = score_test_set(detector, samples, lambda _: None)
        summary = summarise("tiny", bundle.name, detector.engine, detector.calibrator.threshold, evaluation)
        folder = tmp_path_factory.mktemp("report")
        return write_report(folder, bundle, detector, evaluation, summary).read_text()

    return written


@pytest.fixture(scope="module")
def html(write: Write, samples: list[Sample]) -> str:
    return write(samples)


def test_it_is_well_formed_and_fetches_nothing(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert not {"script", "link"} & set(page.tags)
    assert page.sources
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    plain = html.replace('http-equiv="Content-Security-Policy"', "")
    assert not [word for word in ("url(", "@import", "http") if word in plain]


def test_names_are_text_wherever_they_come(html: str) -> None:
    assert "<script" not in html
    assert "<img src=x" not in html
    text = Page(html).text
    assert HOSTILE in text  # in the table of defects
    assert "defect/<img src=x onerror=alert(0)>.png" in text


def test_every_chart_is_an_svg_with_labels_and_data(html: str) -> None:
    parts = html.split('<svg class="chart"')[1:]
    assert len(parts) == 6
    titles = []
    for part in parts:
        svg = ElementTree.fromstring('<svg class="chart"' + part.split("</svg>")[0] + "</svg>")  # noqa: S314
        titles.append(svg.attrib["aria-label"].split(":")[0])
        assert len(list(svg.iter("text"))) >= 6
        lines = [e for e in svg.iter("path") if e.attrib["class"].split()[0] in {"line", "area", "bars"}]
        assert any(e.attrib["d"].count("L") >= 1 for e in lines)
        assert "nan" not in part.split("</svg>")[0]
    assert titles == ["Scores", "ROC", "Per-region overlap", "Calibration", "Good parts, then and now", "Fit"]


def test_message_tells_the_finding(html: str, bundle: Path, detector: Detector) -> None:
    text = " ".join(Page(html).text)
    assert bundle.name in text
    assert "measured on 4 good and 4 defective test images" in text
    assert detector.manifest.data.fingerprint[:16] in text
    assert detector.manifest.backbone.name in text
    assert "No check of the training images is recorded" not in text
    assert "Not for commercial use" not in text
    assert "is certified" in text


def test_images_are_embedded_with_their_heatmaps(html: str) -> None:
    sizes = []
    for source in Page(html).sources:
        data = np.frombuffer(base64.b64decode(source.partition(",")[2]), dtype=np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert image is not None
        sizes.append(max(image.shape))
    # The highest calibration images, and the closest calls of both kinds, each with its heatmap.
    assert sizes == [2 * 280] * 5 + [280] * 2 * (3 + 3)
    assert len(html) < 500_000


def test_mistakes_are_the_worst_first(write: Write, samples: list[Sample]) -> None:
    """Told the truth the wrong way round, every decision is a mistake."""
    swapped = [dataclasses.replace(s, defect=None if s.defect else "d", mask=None) for s in samples]
    html = write(swapped)
    text = " ".join(Page(html).text)
    assert "Good parts that were rejected, highest scores first." in text
    assert "Defective parts that were passed, lowest scores first." in text
    assert html.count('<span class="tag bad">false reject</span>') == 4
    assert html.count('<span class="tag bad">escape</span>') >= 3
    shown = [float(s) for s in re.findall(r"score (\d+\.\d+) \(threshold", text)]
    assert shown[:4] == sorted(shown[:4], reverse=True)
    assert shown[4:] == sorted(shown[4:])
    assert "Where are the defects?" not in text  # nothing has a mask


def test_threshold_that_certifies_nothing_is_said(write: Write, samples: list[Sample], bundle: Path) -> None:
    other = Detector.load(bundle, device="cpu")
    calibration = other.calibrator.calibration
    assert len(calibration.scores) == 10
    other.calibrator = Calibrator(calibration, 0.001, identifier="stricter")
    text = " ".join(Page(write(samples, detector=other)).text)
    assert "is not certified" in text
    assert "10 held-out good images cannot promise 0.10 %. It rejects at most 9.09% of good parts" in text


FINDING = {"severity": "warning", "kind": "near_duplicate", "message": f"{HOSTILE} twice"}


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([], "found no problems"),
        ([FINDING], f"near duplicate {HOSTILE} twice"),
        ([FINDING] * 130, "And 30 more, in the version's report/data_check.json."),
    ],
)
def test_the_check_of_the_data_is_shown(
    write: Write, samples: list[Sample], bundle: Path, tmp_path: Path, findings: list[object], said: str
) -> None:
    copied = shutil.copytree(bundle, tmp_path / "models" / "tiny" / bundle.name)
    shutil.copytree(bundle.parent.parent / "backbones", tmp_path / "models" / "backbones")
    (copied / "report/data_check.json").write_text(json.dumps({"findings": findings}))
    rehash(copied)
    html = write(samples, copied, Detector.load(copied, device="cpu"))
    assert "<script" not in html
    text = " ".join(" ".join(Page(html).text).split())
    assert said in text
    assert "No check of the training images" not in text
