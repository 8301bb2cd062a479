"""Schemas of the Open Inference Protocol, version 2, which KServe and Triton speak."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .texts import MAX_TEXT, TEXT_PATTERN

Datatype = Literal["BYTES", "UINT8", "FP32", "FP64"]
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=TEXT_PATTERN)]
# Limit on the length of lists: each wrong element would be an error of its own.
_MAX_ITEMS = 16


class ServerMetadata(BaseModel):
    """The server and its protocol extensions."""

    name: Literal["flowgauge"] = "flowgauge"
    version: str = Field(examples=["0.1.0"])
    extensions: list[str] = ["binary_tensor_data"]


class TensorMetadata(BaseModel):
    """An input or output tensor of a model."""

    name: str = Field(examples=["image"])
    datatype: Datatype
    shape: list[int] = Field(description="-1 for any size.", examples=[[-1]])


class ModelMetadata(BaseModel):
    """The inputs and outputs of a model."""

    name: str = Field(examples=["bottle"])
    versions: list[str] = Field(examples=[["20261125T011500-3f9a2c"]])
    platform: Literal["flowgauge"] = "flowgauge"
    inputs: list[TensorMetadata] = Field(description="A request sends one of them.")
    outputs: list[TensorMetadata] = Field(
        description="`warnings` (their codes with spaces), `map` and `overlay` come only on request."
    )


class TensorParameters(BaseModel):
    """Parameters of a tensor."""

    model_config = ConfigDict(extra="allow")

    binary_data_size: int | None = Field(
        None, ge=0, description="Number of its bytes after the JSON.", examples=[4096]
    )
    binary_data: bool | None = Field(None, description="Of an output: whether to send it after the JSON.")


class RequestedOutput(BaseModel):
    """An output to return."""

    name: str = Field(examples=["score"])
    parameters: TensorParameters | None = None


class InputTensor(BaseModel):
    """A tensor of images."""

    name: str = Field(examples=["image"])
    shape: list[int] = Field(examples=[[1]], max_length=_MAX_ITEMS)
    datatype: str = Field(examples=["BYTES"])
    parameters: TensorParameters | None = None
    data: Any = Field(
        None,
        description="Base64 of each file for `image`, numbers for `pixels`; null if data follow the JSON.",
        examples=[["iVBORw0KGgo="]],
    )


class RequestParameters(BaseModel):
    """Parameters of a request. Unknown ones are ignored, as the protocol requires."""

    model_config = ConfigDict(extra="allow")

    binary_data_output: bool = False
    part_id: Text | None = Field(None, examples=["P-000123"])
    product_id: Text | None = Field(None, examples=["bottle-500ml"])
    recipe_id: Text | None = Field(None, examples=["top-light"])
    station: Text | None = Field(None, examples=["line-3"])
    file_name: Text | None = Field(None, examples=["top.png"])


class InferenceRequest(BaseModel):
    """Images to inspect."""

    id: str | None = Field(None, description="Returned with the answer.", max_length=256, examples=["42"])
    parameters: RequestParameters | None = None
    inputs: list[InputTensor] = Field(max_length=_MAX_ITEMS)
    outputs: list[RequestedOutput] | None = Field(
        None, description="Without it: decision, score, p_value, inspection_id.", max_length=_MAX_ITEMS
    )


class OutputTensor(BaseModel):
    """A result, with one element or one map per image."""

    name: str = Field(examples=["score"])
    datatype: Datatype
    shape: list[int] = Field(examples=[[1]])
    parameters: dict[str, int | str] | None = Field(None, examples=[{"binary_data_size": 8}])
    data: list[Any] | None = Field(None, examples=[[4.21]])


class InferenceResponse(BaseModel):
    """The results of a request."""

    model_name: str = Field(examples=["bottle"])
    model_version: str = Field(examples=["20261125T011500-3f9a2c"])
    id: str | None = Field(None, examples=["42"])
    outputs: list[OutputTensor]
