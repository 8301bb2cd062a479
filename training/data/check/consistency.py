"""Images whose size, colour, bit depth or light differs from the rest, and blank images."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.check.findings import DataFinding, SizeCount
from training.data.check.image_statistics import ImageStatistics, NamedStatistics

_MAJORITY = 0.8  # share of images that makes a size or a kind of colour the usual one
_SIZE_DEVIATIONS, _MIN_SPREAD = 5.0, 0.05  # robust deviations of logarithms
_GREY = 1.0  # colourfulness below this is JPEG noise in a grey image
_BLANK = 2.0  # grey levels of spread: noise alone
_CAMERA_BITS = (8, 10, 12, 14, 16)  # not every camera shifts them up to 16
_DARK, _BRIGHT = 10, 245  # lightness of nearly all pixels
_DEVIATIONS, _LEVELS = 6.0, 25.0  # an odd brightness exceeds both


def sizes(train: Sequence[ImageStatistics], shown: int = 10) -> list[SizeCount]:
    """Count the sizes of the training images, the most frequent first."""
    counted = Counter(p.size for p in train).most_common(shown)
    return [SizeCount(width=size[1], height=size[0], count=count) for size, count in counted]


def odd_sizes(train: Sequence[ImageStatistics], others: Sequence[NamedStatistics]) -> list[DataFinding]:
    """Find images of an unusual size; if sizes vary, of an unusual area or aspect ratio.

    Args:
        others: the images to compare with them, named.
    """
    (height, width), count = Counter(p.size for p in train).most_common(1)[0]
    if count >= _MAJORITY * len(train):
        odd = [(name, p) for name, p in others if p.size != (height, width)]
        rest = f"the rest {width}x{height}"
    else:
        # (N, 2): log of the side of a square of the same area, log of the aspect ratio
        shapes = np.array([_shape(p) for p in train])
        middle = np.median(shapes, 0)
        spread = np.maximum(1.4826 * np.median(np.abs(shapes - middle), 0), _MIN_SPREAD)
        deviations = [np.abs((_shape(p) - middle) / spread).max() for _, p in others]
        odd = [other for other, far in zip(others, deviations, strict=True) if far > _SIZE_DEVIATIONS]
        side, aspect = np.exp(middle)
        rest = f"the rest vary around {side * aspect**0.5:.0f}x{side / aspect**0.5:.0f}"
    return [
        DataFinding(kind="size", files=[name], message=f"{name} is {p.size[1]}x{p.size[0]}, {rest}")
        for name, p in odd
    ]


def _shape(image: ImageStatistics) -> NDArray[np.float64]:
    height, width = image.size
    return np.array([np.log(height * width) / 2, np.log(width / height)])


def odd_bits(images: Sequence[NamedStatistics], sample_bits: int) -> list[DataFinding]:
    """Find a `sample_bits` that does not fit the 16-bit images; one finding for all of them.

    Either no image uses the upper bits, apart from hot pixels, or some use more: values above the range are
    white. A single image with few bits is no evidence, since the part may be dark.
    """
    deep = [(name, p.bits) for name, p in images if p.bits is not None]
    brightest = max((bits.brightest for _, bits in deep), default=sample_bits)
    usual = max((bits.but_hot for _, bits in deep), default=sample_bits)
    measure = brightest
    if brightest > sample_bits:
        files = [name for name, bits in deep if bits.brightest > sample_bits]
        message = (
            f"{len(files)} images of 16 bits use up to {brightest} of them, and sample_bits is "
            f"{sample_bits}: what is above {2**sample_bits - 1} is white in them"
        )
    elif (fitting := next(bits for bits in _CAMERA_BITS if bits >= usual)) < sample_bits:
        hot, measure = ", but for single pixels" if brightest > usual else "", usual
        files = [name for name, _ in deep]
        message = (
            f"{len(deep)} images of 16 bits use {usual} of them at most{hot}. The upper 8 of {sample_bits} "
            f"are taken, which leaves {2 ** max(usual - sample_bits + 8, 0)} shades of grey: set "
            f"sample_bits: {fitting} in the run's YAML if the camera gives no more"
        )
    else:
        return []
    return [DataFinding(kind="depth", files=files, message=message, measure=float(measure))]


def odd_colours(train: Sequence[ImageStatistics], others: Sequence[NamedStatistics]) -> list[DataFinding]:
    """Find grey images among coloured ones, or coloured images among grey ones."""
    coloured = sum(p.colourfulness >= _GREY for p in train)
    if max(coloured, len(train) - coloured) < _MAJORITY * len(train):
        return []
    usual = coloured * 2 > len(train)
    words = {True: "coloured", False: "grey"}
    return [
        DataFinding(
            kind="colour",
            files=[name],
            message=f"{name} is {words[not usual]}, the rest {words[usual]}",
            measure=p.colourfulness,
        )
        for name, p in others
        if (p.colourfulness >= _GREY) != usual
    ]


def odd_light(train: Sequence[ImageStatistics], others: Sequence[NamedStatistics]) -> list[DataFinding]:
    """Find blank images, nearly black or white ones, and those darker or brighter than the rest."""
    levels = np.array([p.brightness for p in train])
    middle = float(np.median(levels))
    spread = 1.4826 * float(np.median(np.abs(levels - middle)))
    # If the scene itself is black, white or without texture, such an image is not odd.
    blank_scene = float(np.median([p.spread for p in train])) < _BLANK
    dark_scene = float(np.median([p.brightest for p in train])) <= _DARK
    bright_scene = float(np.median([p.darkest for p in train])) >= _BRIGHT
    findings = []
    for name, p in others:
        off = p.brightness - middle
        if p.brightest <= _DARK and not dark_scene:
            kind, message = "exposure", f"{name} is black nearly all over"
        elif p.darkest >= _BRIGHT and not bright_scene:
            kind, message = "exposure", f"{name} is white nearly all over"
        elif p.spread < _BLANK and not blank_scene:
            kind, message = "blank", f"{name} shows one shade all over ({p.brightness:.0f} of 255)"
        elif abs(off) > max(_DEVIATIONS * spread, _LEVELS):
            word = "brighter" if off > 0 else "darker"
            kind = "exposure"
            message = f"{name} is {word} than the rest: mean {p.brightness:.0f} of 255, usually {middle:.0f}"
        else:
            continue
        findings.append(
            DataFinding.model_validate({"kind": kind, "files": [name], "message": message, "measure": off})
        )
    return findings
