"""Schemas of products and of the images in their datasets."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from .body import Body
from .history import Verdict
from .jobs import Teaching
from .models import VersionName
from .predict import Sha256
from .problem import ProblemDetails
from .texts import MAX_TEXT, TEXT_PATTERN
from .timestamp import Timestamp

Takeover = Literal["automatic", "manual"]
ImageSource = Literal["upload", "camera", "folder", "inspection"]
ItemStatus = Literal[
    "stored",
    "duplicate",
    "undecodable",
    "unsupported",
    "too-small",
    "too-large",
    "full",
    "unlabelled",
    "failed",
]
MAX_CHANGES = 500  # of images, in one request
MAX_IMPORTED = 100  # images, in one request
# Names of folders that hold no kind of defect, as in training/data/folders.py.
GOOD_FOLDERS = frozenset({"good", "ok", "normal"})
MASK_FOLDERS = frozenset({"ground_truth", "mask", "masks"})


def _require_folder_name(kind: str) -> str:
    reserved = GOOD_FOLDERS | MASK_FOLDERS
    if kind.lower() in reserved or kind != kind.strip():
        raise ValueError(f"must not begin or end with a space, nor be one of {', '.join(sorted(reserved))}")
    return kind


ProductName = Annotated[str, Field(description="The category that it is taught as.", examples=["bottle"])]
# A kind names a folder, whose name has at most 255 bytes: 60 characters of 4.
DefectKind = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f-\x9f/\\.][^\x00-\x1f\x7f-\x9f/\\]*$"
    ),
    AfterValidator(_require_folder_name),
    Field(examples=["scratch"]),
]
MAX_KINDS = 100  # of a product
_KINDS = Field(max_length=MAX_KINDS, description="Kinds of defect.", examples=[["scratch", "dent"]])
_TAKEOVER = Field(
    description="Whether a finished version serves by itself, or after somebody activates it.",
    examples=["automatic"],
)
_KIND = Field(description="Kind of the defect; null if it is unknown.", examples=["scratch"])
OptionalText = Annotated[str | None, Field(max_length=MAX_TEXT, pattern=TEXT_PATTERN)]
_PART = Field(description="Part that the image shows.", examples=["P-000123"])


class NewProduct(Body):
    """A product to create."""

    name: Annotated[ProductName, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    kinds: Annotated[list[DefectKind], _KINDS] = Field(default_factory=list)
    takeover: Annotated[Takeover, _TAKEOVER] = "automatic"


class ProductChange(Body):
    """Settings of a product to change; others stay."""

    kinds: Annotated[list[DefectKind] | None, _KINDS] = None
    takeover: Annotated[Takeover | None, _TAKEOVER] = None


class ImageCounts(BaseModel):
    """Images of a dataset. The first four count each image once, except that `findings` overlaps."""

    good: int = Field(description="Good images, without excluded ones.", examples=[63])
    defect: int = Field(description="Defects, without excluded ones.", examples=[8])
    excluded: int = Field(examples=[1])
    findings: int = Field(description="Images that the data check marked, without excluded ones.")
    bytes: int = Field(description="Bytes of all images.", examples=[48_211_003])


class Product(BaseModel):
    """A product: a category that can be taught, and the state of its dataset."""

    name: ProductName
    created: Timestamp
    kinds: Annotated[list[str], _KINDS]
    takeover: Annotated[Takeover, _TAKEOVER]
    revision: int = Field(description="Of the settings; the ETag.", examples=[1])
    data_revision: int = Field(description="Grows with each change of images or labels.", examples=[71])
    checked: Timestamp | None = Field(description="Time of the last data check; null before the first.")
    images: ImageCounts
    versions: list[VersionName] = Field(description="Published versions, oldest first.")
    active: VersionName | None = Field(description="The version that serves.")
    findings: dict[str, int] | None = Field(
        None,
        description="Images by kind of finding, without excluded ones; null in lists.",
        examples=[{"outlier": 2}],
    )
    teaching: Teaching | None = Field(None, description="Only of a single product; null in lists.")


class ProductList(BaseModel):
    """Products that the caller's key covers, by name."""

    products: list[Product]


class ImageFinding(BaseModel):
    """A finding of the data check that concerns an image."""

    kind: str = Field(examples=["outlier"])
    severity: Literal["error", "warning"]
    message: str
    measure: float | None = Field(description="Strength, in the kind's own unit.", examples=[5.4])
    others: list[Sha256] = Field(description="Other images of the finding, such as copies; at most 10.")


class ProductImageLinks(BaseModel):
    """Links to an image of a dataset."""

    self: str
    image: str = Field(description="The uploaded bytes.")
    thumbnail: str = Field(description="A JPEG of at most 256 pixels a side; it never changes.")


class ProductImage(BaseModel):
    """An image of a dataset."""

    sha256: Sha256
    name: str = Field(description="Name of the uploaded file.", examples=["top.png"])
    width: int = Field(examples=[900])
    height: int = Field(examples=[900])
    bytes: int = Field(examples=[812_331])
    label: Verdict
    kind: Annotated[DefectKind | None, _KIND]
    excluded: bool = Field(description="Whether it is left out of trainings.")
    source: ImageSource
    inspection_id: str | None = Field(description="The inspection that it was imported from.")
    part_id: Annotated[str | None, _PART]
    findings: list[ImageFinding] = Field(description="Of the last data check.")
    added: Timestamp
    links: ProductImageLinks


class ProductImagePage(BaseModel):
    """Images of a dataset, the latest first."""

    images: list[ProductImage]
    next_cursor: str | None = Field(
        description="The `cursor` of the next page; null on the last one.", examples=["4711"]
    )
    total: int = Field(description="Images that the filter selects.", examples=[71])


class ImageLabel(Body):
    """Label of an image to change; missing fields stay. As an answer: the state before."""

    image: Sha256
    label: Verdict | None = None
    kind: Annotated[DefectKind | None, _KIND] = None
    excluded: bool | None = Field(None, description="Whether to leave it out of trainings.")


class LabelChanges(Body):
    """Changes of several images, made together or not at all."""

    changes: list[ImageLabel] = Field(min_length=1, max_length=MAX_CHANGES)


class ChangedImages(BaseModel):
    """Changed images, and their labels before; a PATCH with those as `changes` undoes it."""

    images: list[ProductImage]
    before: list[ImageLabel]


class StoredItem(BaseModel):
    """One image of an upload or import: the stored image, or its problem."""

    index: int = Field(description="Position in the request, from 0.", examples=[0])
    filename: str | None = Field(description="The file's name in the request.", examples=["top.png"])
    status: ItemStatus = Field(description="What became of it.")
    image: ProductImage | None = Field(description="Also of a duplicate; null if it was not stored.")
    problem: ProblemDetails | None


class StoredImages(BaseModel):
    """The images of an upload or import, each with its own status."""

    items: list[StoredItem]
    counts: dict[ItemStatus, int] = Field(description="Items by status.", examples=[{"stored": 9}])
    product: Product = Field(description="The product afterwards.")


class ImportedImages(StoredImages):
    """A page of an import, and the cursor of the next."""

    next_cursor: str | None = Field(
        description="Send it as `cursor` with the same body for the next page; null on the last one.",
        examples=["train/good/099.png"],
    )


class NewImport(Body):
    """Images to add to a dataset, by one of `inspections` and `folder`."""

    inspections: list[str] | None = Field(
        None, min_length=1, max_length=MAX_IMPORTED, description="Ids of inspections."
    )
    folder: OptionalText = Field(
        None,
        description="A folder of the server within FLOWGAUGE_IMPORT_FOLDERS, or relative to one.",
        examples=["line-3/bottle"],
    )
    label: Verdict | None = Field(
        None,
        description="Label of all images. By default the verdict of a review, or the name of a file's "
        "folder: good (ok, normal), or beside such a folder a kind of defect.",
    )
    kind: Annotated[DefectKind | None, _KIND] = None
    cursor: str | None = Field(None, max_length=4096, description="`next_cursor` of the page before.")

    @model_validator(mode="after")
    def _require_one_source(self) -> Self:
        if (self.inspections is None) == (self.folder is None):
            raise ValueError("name one of inspections and folder")
        if self.kind is not None and self.label != "defect":
            raise ValueError("a kind needs the label defect")
        return self
