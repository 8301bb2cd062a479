"""The images of `flowgauge flows` commands: scikit-learn's digits, or a folder of images."""

from pathlib import Path

import torch
from torch import Tensor

from flows.fastflow.imaging.image_errors import ImageError
from training.density import image_data
from training.density.image_data import ImageSplits

DIGITS = "digits"
_DIGIT_SHAPE = (1, 8, 8)


class DataError(ValueError):
    """The images are missing or do not fit the flow."""


def load_fit_images(data: str, size: int | None, channels: int | None, halvings: int) -> ImageSplits:
    """Load the images to fit a flow to, in three splits.

    Args:
        size: side of a folder's images; by default 32.
        channels: channels of a folder's images; by default 3.
        halvings: how often the flow halves its images.

    Raises:
        DataError, ImageDataError, ImageError: the images cannot be loaded.
    """
    if data == DIGITS:
        if size is not None or channels is not None:
            raise DataError("the digits are 8 x 8 and grey; --size and --channels are for folders of images")
        return image_data.digits()
    return image_data.folder(
        Path(data), 32 if size is None else size, 3 if channels is None else channels, scales=halvings
    )


def load_score_images(
    data: str, event_shape: tuple[int, int, int], levels: int
) -> tuple[list[str], Tensor, dict[str, str]]:
    """Load the images to score with their names: the digits' test split, or a whole folder.

    Args:
        event_shape: (C, H, W) of the flow.

    Returns:
        N names, images (N, C, H, W), and the reasons for unreadable files by name.

    Raises:
        DataError, ImageDataError: there are no images, or they do not fit the flow.
    """
    if data == DIGITS:
        if event_shape != _DIGIT_SHAPE or levels != image_data.DIGIT_LEVELS:
            raise DataError(
                f"the digits have the shape {_DIGIT_SHAPE} and {image_data.DIGIT_LEVELS} levels; this flow "
                f"takes {event_shape} of {levels} levels"
            )
        values = image_data.digits().test
        return [f"test/{i}" for i in range(len(values))], values, {}
    channels, size, _ = event_shape
    if levels != image_data.IMAGE_LEVELS:
        raise DataError(
            f"this flow takes images of {levels} levels, as the digits; those of a folder have 256"
        )
    images: dict[str, Tensor] = {}
    failures: dict[str, str] = {}
    for file in image_data.files(Path(data)):
        try:
            images[file.name] = torch.from_numpy(image_data.read(file, size, channels))
        except ImageError as error:
            failures[file.name] = str(error).removeprefix(f"{file}: ")
        except OSError as error:
            failures[file.name] = error.strerror or str(error)
    if not images:
        name, reason = next(iter(failures.items()))
        raise DataError(f"none of the {len(failures)} images in {data} can be read; {name!r}: {reason}")
    return list(images), torch.stack(list(images.values())).float(), failures
