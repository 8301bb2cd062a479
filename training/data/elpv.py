"""ELPV: electroluminescence photographs of solar cells, from the PyPI package elpv-dataset.

Each of the 2,624 cells carries the probability that it is defective, as experts graded it. The
protocol: good = probability 0, defective = probability 1, mono- and polycrystalline cells together,
the grades between left out. A quarter of the good cells is kept for the test by scikit-learn's
train_test_split with random_state 42. So 1131 good cells are there to train on, 377 good and 715
defective ones to test on.

The photographs are copied as they are, with their licence (CC BY-NC-SA 4.0) beside them.
"""

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from sklearn.model_selection import train_test_split

from flows.fastflow.files.atomic_files import temporary_directory
from training.data.folders import list_images
from training.data.sample import DatasetError

CATEGORY = "solar_cell"
DISTRIBUTION = "elpv-dataset"
PACKAGE = "elpv_dataset"

LICENCE = "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International, CC-BY-NC-SA-4.0"
ATTRIBUTION = """\
ELPV: photographs of functional and defective solar cells, from electroluminescence images of
photovoltaic modules. Not ours; not for commercial use without its authors' permission. When you use
them, cite:

Buerhop-Lutz, Deitsch, Maier, Gallwitz, Berger, Doll, Hauch, Camus, Brabec: A Benchmark for Visual
    Identification of Defective Solar Cells in Electroluminescence Imagery. EU PVSEC 2018.
    doi:10.4229/35thEUPVSEC20182018-5CV.3.15
Deitsch, Buerhop-Lutz, Sovetkin, Steland, Maier, Gallwitz, Riess: Segmentation of photovoltaic
    module cells in uncalibrated electroluminescence images. Machine Vision and Applications 32(4),
    2021.
    doi:10.1007/s00138-021-01191-9
Deitsch, Christlein, Berger, Buerhop-Lutz, Maier, Gallwitz, Riess: Automatic classification of
    defective photovoltaic module cells in electroluminescence images. Solar Energy 185, 2019.
    doi:10.1016/j.solener.2019.02.067
"""

_README = f"""\
{ATTRIBUTION}
Licence: {LICENCE} (full text in LICENSE.md).

Laid out by `flowgauge data elpv` from the PyPI package {DISTRIBUTION} {{version}}; the images are
unchanged. good: graded 0 by the experts; defective: graded 1; the grades between are left out.
"""


def lay_out(out: Path) -> Path:
    """Copy the cells into `out`/solar_cell in the layout of MVTec AD, if they are not there.

    The folder appears complete or not at all; a second call changes nothing.

    Raises:
        DatasetError: the package is not installed or not as expected, or the folder exists and
            holds something else.
    """
    layout = split(package_folder())
    folder = out / CATEGORY
    if not folder.exists():
        with temporary_directory(out) as temporary:
            _write(temporary, layout)
            temporary.chmod(0o755)
            temporary.rename(folder)
    _check(folder, layout)
    return folder


def package_folder() -> Path:
    """Find the package's folder without importing it.

    Raises:
        DatasetError: it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError(
            f"the package {DISTRIBUTION} is not installed: pip install {DISTRIBUTION} "
            "(photographs of solar cells, 91 MB, CC BY-NC-SA 4.0)"
        )
    return Path(spec.submodule_search_locations[0])


def split(package: Path) -> dict[str, list[Path]]:
    """Read the package's grades and split the cells by the protocol.

    Returns:
        Files by folder: train/good, test/good, test/defective; each sorted.
    """
    labels = package / "data" / "labels.csv"
    good: list[Path] = []
    defective: list[Path] = []
    if not labels.is_file():
        raise DatasetError(f"the package {DISTRIBUTION} has no {labels}: is it damaged, or not version 1.0?")
    for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            name, probability, _kind = line.split()
            grade = float(probability)
        except ValueError as error:
            raise DatasetError(
                f"{labels} line {number}: expected a path, a probability and a kind; got {line!r}"
            ) from error
        if grade in (0.0, 1.0):
            (defective if grade else good).append(labels.parent / name)
    if len(good) < 2 or not defective:
        raise DatasetError(f"{labels} lists {len(good)} good and {len(defective)} defective cells")
    train, test = train_test_split(good, test_size=0.25, random_state=42)
    return {"train/good": sorted(train), "test/good": sorted(test), "test/defective": sorted(defective)}


def _write(folder: Path, layout: Mapping[str, list[Path]]) -> None:
    for name, files in layout.items():
        (folder / name).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / name / file.name)
    version = importlib.metadata.version(DISTRIBUTION)
    (folder / "README.txt").write_text(_README.format(version=version), encoding="utf-8")
    (folder / "licence.txt").write_text(LICENCE + "\n", encoding="utf-8")
    for entry in importlib.metadata.files(DISTRIBUTION) or []:
        if entry.name == "LICENSE.md":
            shutil.copyfile(str(entry.locate()), folder / entry.name)


def _check(folder: Path, layout: Mapping[str, list[Path]]) -> None:
    """Refuse a folder with other images: results on it would mislead."""
    for name, files in layout.items():
        present = {f.name for f in list_images(folder / name)}
        if present != {f.name for f in files}:
            raise DatasetError(
                f"{folder / name} exists and holds {len(present)} images that are not the "
                f"{len(files)} cells of the protocol: remove or rename {folder} and try again"
            )
