"""Bodies of the Open Inference Protocol, version 2, which KServe and Triton speak."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .texts import MAX_TEXT, TEXT_PATTERN

Datatype = Literal["BYTES", "UINT8", "FP32", "FP64"]
Text = Annotated[str, Field(max_length=MAX_TEXT, pattern=TEXT_PATTERN)]
# Lists are read no further than so far, whatever was sent: of what is wrong in them each element is an error.
_FEW = 16


class ServerMetadata(BaseModel):
    """What the server is."""

    name: Literal["flowgauge"] = "flowgauge"
    version: str = Field(examples=["0.1.0"])
    extensions: list[str] = ["binary_tensor_data"]


class TensorMetadata(BaseModel):
    """An input or an output."""

    name: str = Field(examples=["image"])
    datatype: Datatype
    shape: list[int] = Field(description="-1 where any size will do.", examples=[[-1]])


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    name: str = Field(examples=["bottle"])
    versions: list[str] = Field(examples=[["20261125T011500-3f9a2c"]])
    platform: Literal["flowgauge"] = "flowgauge"
    inputs: list[TensorMetadata] = Field(description="One of them is to be sent.")
    outputs: list[TensorMetadata] = Field(description="`map` and `overlay` come only when asked for.")


class TensorParameters(BaseModel):
    """What else is said of a tensor."""

    model_config = ConfigDict(extra="allow")

    binary_data_size: int | None = Field(None, ge=0, description="Its bytes after the JSON.", examples=[4096])
    binary_data: bool | None = Field(None, description="Of an output: to come after the JSON.")


class RequestedOutput(BaseModel):
    """An output that is wanted."""

    name: str = Field(examples=["score"])
    parameters: TensorParameters | None = None


class InputTensor(BaseModel):
    """Images."""

    name: str = Field(examples=["image"])
    shape: list[int] = Field(examples=[[1]], max_length=_FEW)
    datatype: str = Field(examples=["BYTES"])
    parameters: TensorParameters | None = None
    data: Any = Field(
        None,
        description="Of `image`, base64 of each file; of `pixels`, numbers. null where they follow the JSON.",
        examples=[["iVBORw0KGgo="]],
    )


class RequestParameters(BaseModel):
    """What holds for a request; what is not known here is passed over, as the protocol wants."""

    model_config = ConfigDict(extra="allow")

    binary_data_output: bool = False
    part_id: Text | None = Field(None, examples=["P-000123"])
    product_id: Text | None = Field(None, examples=["bottle-500ml"])
    recipe_id: Text | None = Field(None, examples=["top-light"])
    station: Text | None = Field(None, examples=["line-3"])


class InferenceRequest(BaseModel):
    """Images to inspect."""

    id: str | None = Field(None, description="Comes back with the answer.", max_length=256, examples=["42"])
    parameters: RequestParameters | None = None
    inputs: list[InputTensor] = Field(max_length=_FEW)
    outputs: list[RequestedOutput] | None = Field(
        None, description="Without it: decision, score, p_value, inspection_id.", max_length=_FEW
    )


class OutputTensor(BaseModel):
    """Something that was found out, one element or one map an image."""

    name: str = Field(examples=["score"])
    datatype: Datatype
    shape: list[int] = Field(examples=[[1]])
    parameters: dict[str, int | str] | None = Field(None, examples=[{"binary_data_size": 8}])
    data: list[Any] | None = Field(None, examples=[[4.21]])


class InferenceResponse(BaseModel):
    """What was found out."""

    model_name: str = Field(examples=["bottle"])
    model_version: str = Field(examples=["20261125T011500-3f9a2c"])
    id: str | None = Field(None, examples=["42"])
    outputs: list[OutputTensor]
