"""What can be set about the service; combinations that would be unsafe are refused at start."""

import ipaddress
import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024


class Settings(BaseSettings):
    """Settings of the service, from arguments and else from FLOWGAUGE_* environment variables.

    Raises:
        ValidationError: a value is out of range, or the combination is unsafe; the message says
            what to do.
    """

    model_config = SettingsConfigDict(env_prefix="FLOWGAUGE_", frozen=True)

    models: Path = Field(Path("models"), description="Folder of the published models.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    device: str = Field("auto", description="Where models compute: auto, cpu, cuda or cuda:N.")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; unset leaves it to torch.")
    max_bytes: int = Field(32 * MIB, ge=1, description="Largest upload, in bytes.")
    max_pixels: int = Field(50_000_000, ge=1, description="Largest image, in pixels.")
    queue_images: int = Field(64, ge=1, description="Images that may wait for an answer.")
    queue_bytes: int = Field(512 * MIB, ge=1, description="Bytes of uploads, pixels and answers in memory.")
    upload_idle_seconds: float = Field(
        30, gt=0, allow_inf_nan=False, description="Seconds without a byte after which an upload is given up."
    )
    decode_threads: int = Field(2, ge=1, description="Images decoded or drawn at a time.")
    preload: bool = Field(True, description="Load active models at start, not when first asked for.")
    extra_versions: int = Field(
        2, ge=1, description="Versions kept loaded beside the active ones, when asked for by name."
    )
    allow_unauthenticated_network: bool = Field(
        False, description="Listen beyond this machine although no request is authenticated."
    )

    @field_validator("device")
    @classmethod
    def _refuse_unknown_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", device):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return device

    @model_validator(mode="after")
    def _refuse_open_network(self) -> Self:
        if not self.allow_unauthenticated_network and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} is reachable from the network, and this service does not authenticate: "
                "anyone there could inspect and read. Listen on 127.0.0.1 behind a proxy that "
                "authenticates, or, on a network you trust or inside a container, set "
                "FLOWGAUGE_ALLOW_UNAUTHENTICATED_NETWORK=true"
            )
        return self

    @model_validator(mode="after")
    def _expect_room_for_one(self) -> Self:
        largest = self.max_bytes + 3 * self.max_pixels
        if self.queue_bytes < largest:
            raise ValueError(
                f"queue_bytes {self.queue_bytes} has no room for one image of max_bytes {self.max_bytes} and "
                f"max_pixels {self.max_pixels}; set FLOWGAUGE_QUEUE_BYTES to {largest} or more"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an address, is this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
