"""What can be set about the service; combinations that would be unsafe are refused at start."""

import difflib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
Finite = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_PREFIX: Final = "FLOWGAUGE_"
# Read elsewhere: by other commands, before Python's libraries are loaded, by docker-compose.yml.
_OTHERS: Final = ("RUNS", "KEY", "URL", "DEBUG", "MALLOC", "BIND", "DATA")


class Settings(BaseSettings):
    """Settings of the service, from arguments and else from FLOWGAUGE_* environment variables.

    An empty variable is as if it were not set.

    Raises:
        ValidationError: a value is out of range, or the combination is unsafe; the message says
            what to do.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, frozen=True, use_attribute_docstrings=True
    )

    models: Path = Path("models")
    """Folder of the published models."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""
    device: str = Field("auto", pattern="^(auto|cpu|cuda(:[0-9]{1,2})?)$")
    """Where models compute: auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16", "openvino-bfloat16"] = "float32"
    """What models compute in: float32, or another that they were calibrated for too."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """Who computes: auto is OpenVINO on a CPU, where it is installed, and else torch."""
    engine_cache: Path | None = None
    """Folder of the graphs that OpenVINO converted, trusted as code; unset: in the history folder."""
    threads: PositiveInt | None = None
    """CPU threads that compute; unset is what torch takes."""
    max_bytes: PositiveInt = 32 * MIB
    """Largest upload, in bytes."""
    max_pixels: PositiveInt = 50_000_000
    """Largest image, in pixels."""
    # 64 clients of eight categories, one request each, are within the shares that `Admission` leaves them.
    queue_images: PositiveInt = 72
    """Images that may wait for an answer."""
    queue_bytes: PositiveInt = 512 * MIB
    """Bytes of uploads, pixels and answers in memory."""
    upload_idle_seconds: Finite = 30
    """Seconds without a byte, or behind 256 KiB/s, after which an upload is given up."""
    decode_threads: PositiveInt = 2
    """Images decoded at a time, and as many drawn."""
    preload: bool = True
    """Load active models at start, not when first asked for."""
    model_bytes: PositiveInt = 4096 * MIB
    """Bytes of loaded models; beyond, those unused for longest are unloaded."""
    max_bundle_bytes: PositiveInt = 1024 * MIB
    """Largest model that may be uploaded, in bytes."""
    max_batch: int = Field(16, ge=1, le=256)
    """Images computed together."""
    max_items: int = Field(32, ge=1, le=1000)
    """Images in one request of predict:batch."""
    deadline_ms: int = Field(30_000, ge=1, le=600_000)
    """Milliseconds a prediction may take, its upload included, where it says nothing."""
    history: Path = Path("history")
    """Folder of the inspections' pictures and journal."""
    database: str | None = None
    """postgresql://USER:PASSWORD@HOST/NAME; unset keeps a SQLite file in the history folder."""
    journal_bytes: PositiveInt = 4096 * MIB
    """Bytes of inspections that may wait to be filed; beyond, none is accepted."""
    retention_pass_days: Finite | None = None
    """Days after which passed inspections are deleted; unset keeps them."""
    retention_review_days: Finite | None = None
    """Days after which inspections in the review band are deleted."""
    retention_reject_days: Finite | None = None
    """Days after which rejected inspections are deleted."""
    retention_bytes: PositiveInt | None = None
    """Bytes of pictures and maps; beyond, the oldest go, passed ones first; rows stay."""
    drift_window: int = Field(200, ge=20, le=10_000)
    """Latest inspections compared with calibration."""
    max_readers: int = Field(100, ge=1, le=10_000)
    """Who may listen to /v1/events at a time, a connection each; half of them with one key."""
    events_kept: int = Field(500_000, ge=1_000)
    """Latest events kept for readers and sinks that come back, about 0.5 kB each."""
    mqtt_url: str | None = None
    """MQTT broker that is told of inspections: mqtt://HOST:PORT, or mqtts:// with TLS."""
    mqtt_user: str | None = None
    """User of the MQTT broker."""
    mqtt_password: SecretStr | None = None
    """Password of that user."""
    mqtt_ca: Path | None = None
    """PEM file of the authority that signed the broker's certificate."""
    mqtt_topic: str = "flowgauge/{station}/{category}/inspection"
    """Topic of an inspection; also {decision} can stand in it."""
    mqtt_status_topic: str = "flowgauge/status"
    """Retained topic that says whether this server is online."""
    webhooks: Path | None = None
    """YAML file of the webhooks that are told of inspections; see docs/how-to/receive-events.md."""
    requests_per_minute: PositiveInt | None = None
    """Requests a minute for keys that set no limit of their own."""
    session_hours: float = Field(12, gt=0, le=24 * 31)
    """Hours until a browser must log in again."""
    tls_certificate: Path | None = None
    """PEM file of the server's certificate; with FLOWGAUGE_TLS_KEY."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    trusted_proxies: str = ""
    """Addresses or networks of proxies, by commas: only their X-Forwarded-For is believed. Needs a key."""
    drain_seconds: float = Field(0, ge=0, le=600)
    """Seconds between SIGTERM, when /health/ready turns 503, and closing the port."""
    log_format: Literal["text", "json"] = "text"
    """Lines of the log: for people or programs."""
    allow_unauthenticated_network: bool = False
    """Listen beyond this machine, or trust a proxy, without keys: whoever comes may do everything."""

    @field_validator("trusted_proxies")
    @classmethod
    def _require_addresses(cls, proxies: str) -> str:
        for proxy in filter(None, map(str.strip, proxies.split(","))):
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"must be addresses or networks, as 10.0.0.0/24, by commas; {error}"
                ) from error
        return proxies

    @model_validator(mode="after")
    def _refuse_what_does_not_fit_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS needs both FLOWGAUGE_TLS_CERTIFICATE and FLOWGAUGE_TLS_KEY")
        largest = self.max_bytes + 3 * self.max_pixels
        if self.queue_bytes < largest:
            raise ValueError(
                f"queue_bytes {self.queue_bytes} has no room for one image of max_bytes {self.max_bytes} and "
                f"max_pixels {self.max_pixels}; set FLOWGAUGE_QUEUE_BYTES to {largest} or more"
            )
        if self.max_items > self.queue_images:
            raise ValueError(
                f"max_items {self.max_items} is more than queue_images {self.queue_images}: a request of so "
                f"many images would always be refused; set FLOWGAUGE_MAX_ITEMS to {self.queue_images} or "
                "less, or FLOWGAUGE_QUEUE_IMAGES to more"
            )
        return self

    @property
    def max_request_bytes(self) -> int:
        """The limit on a request with several images."""
        return max(self.max_bytes, self.queue_bytes // 2)

    @property
    def kept_for_ever(self) -> list[str]:
        """The variables that would let inspections of a decision go by age and are not set."""
        names = ("retention_pass_days", "retention_review_days", "retention_reject_days")
        return [f"FLOWGAUGE_{name.upper()}" for name in names if getattr(self, name) is None]

    @property
    def compiled(self) -> Path:
        """Where compiled graphs lie."""
        return self.engine_cache or self.history / "engines"

    @property
    def database_url(self) -> str:
        """The database to use."""
        return self.database or f"sqlite:///{self.sqlite_file}"

    @property
    def has_database(self) -> bool:
        """Whether these settings name a database; of a file that is not there SQLite makes an empty one."""
        return self.database is not None or self.sqlite_file.exists()

    @property
    def sqlite_file(self) -> Path:
        """Where the database lies if no URL names another one."""
        return self.history.absolute() / "history.sqlite"


class SettingsError(ValueError):
    """A setting is out of range, or settings do not fit together."""


def settings_from(**given: Any) -> Settings:
    """Settings for a command.

    Args:
        given: what its options set; None leaves a setting to the environment.

    Raises:
        SettingsError: a line for everything that is wrong, naming the variable.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(map(_explain, error.errors()))) from error


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """A line for every variable of ours that nothing reads: misspelt, or of another version."""
    known = [name.upper() for name in (*Settings.model_fields, *_OTHERS)]
    lines = []
    for variable in environment:
        name = variable.upper().removeprefix(_PREFIX)
        if variable.upper().startswith(_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"; is {_PREFIX}{close[0]} meant?" if close else ""
            lines.append(f"{variable} is no setting and changes nothing{meant}")
    return lines


def _explain(item: ErrorDetails) -> str:
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    return f"{_PREFIX}{str(item['loc'][0]).upper()}: {message}; got {item['input']!r}"
