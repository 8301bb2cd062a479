"""Settings of the service. Unsafe combinations are refused at start."""

import difflib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PositiveInt, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.storage.urls import StoreError, require_store_url

MIB = 1024 * 1024
PositiveFinite = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_PREFIX: Final = "FLOWGAUGE_"
# Variables read elsewhere: by other commands, before libraries load, or by docker-compose.yml.
_OTHER_VARIABLES: Final = ("RUNS", "RAY", "KEY", "URL", "DEBUG", "MALLOC", "BIND", "DATA")


class Settings(BaseSettings):
    """Settings of the service, from arguments or else from FLOWGAUGE_* environment variables.

    An empty variable counts as not set.

    Raises:
        ValidationError: a value is out of range, or the combination is unsafe. The message says what to do.
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
    """Device that computes: auto, cpu, cuda or cuda:N."""
    precision: Literal["float32", "bfloat16", "openvino-bfloat16"] = "float32"
    """Precision of the models; other than float32 only if they are calibrated for it."""
    engine: Literal["auto", "torch", "openvino"] = "auto"
    """Inference engine; auto is OpenVINO on a CPU where it is installed, otherwise torch."""
    engine_cache: Path | None = None
    """Folder of compiled OpenVINO graphs, trusted like code; by default in the history folder."""
    threads: PositiveInt | None = None
    """CPU threads that compute; by default torch's choice."""
    job_threads: PositiveInt | None = None
    """CPU threads of a job, such as a training; by default the free cores but one."""
    max_bytes: PositiveInt = 32 * MIB
    """Largest upload, in bytes."""
    max_pixels: PositiveInt = 50_000_000
    """Largest image, in pixels."""
    # Fits 64 clients of eight categories, one request each, within the shares of `Admission`.
    queue_images: PositiveInt = 72
    """Most images that wait for an answer."""
    queue_bytes: PositiveInt = 512 * MIB
    """Most memory for uploads, pixels and answers, in bytes."""
    upload_idle_seconds: PositiveFinite = 30
    """Seconds without a byte, or behind 256 KiB/s, after which an upload is aborted."""
    decode_threads: PositiveInt = 2
    """Images decoded at a time; as many are drawn at a time."""
    preload: bool = True
    """Load active models at start instead of at the first request."""
    model_bytes: PositiveInt = 4096 * MIB
    """Memory for loaded models, in bytes; beyond it, the least recently used are unloaded."""
    max_bundle_bytes: PositiveInt = 1024 * MIB
    """Largest upload of a model, in bytes."""
    max_batch: int = Field(16, ge=1, le=256)
    """Most images computed together."""
    max_items: int = Field(32, ge=1, le=1000)
    """Most images in one request to predict:batch."""
    deadline_ms: int = Field(30_000, ge=1, le=600_000)
    """Time limit of a prediction in ms, upload included, unless the request sets one."""
    history: Path = Path("history")
    """Folder of the stored images and of the journal."""
    database: str | None = None
    """postgresql://USER:PASSWORD@HOST/NAME; by default a SQLite file in the history folder."""
    store: str | None = None
    """s3://BUCKET/PREFIX or file:///DIR: images, maps and models, shared by servers of one PostgreSQL."""
    store_cache_bytes: PositiveInt = 4096 * MIB
    """Most bytes of models on this disk that are also in the store; the least recently used go."""
    journal_bytes: PositiveInt = 4096 * MIB
    """Most bytes of inspections that wait for the database; beyond, new ones are refused."""
    retention_pass_days: PositiveFinite | None = None
    """Days after which PASS inspections are deleted; by default never."""
    retention_review_days: PositiveFinite | None = None
    """Days after which REVIEW inspections are deleted; by default never."""
    retention_reject_days: PositiveFinite | None = None
    """Days after which REJECT inspections are deleted; by default never."""
    retention_bytes: PositiveInt | None = None
    """Most bytes of stored images and maps; beyond, the oldest go, PASS first. Database rows stay."""
    audit_share: float = Field(0, ge=0, le=1)
    """Share of inspections drawn at random for review, for categories without their own."""
    product_images: PositiveInt = 20_000
    """Most images of a product's dataset."""
    product_bytes: PositiveInt = 64 * 1024 * MIB
    """Most bytes of images in all datasets."""
    import_folders: str = ""
    """Comma-separated folders of this machine from which operators may import images; none by default."""
    drift_window: int = Field(200, ge=20, le=10_000)
    """Number of latest inspections that drift compares with the calibration."""
    max_readers: int = Field(100, ge=1, le=10_000)
    """Most connections to /v1/events; one key may hold half of them."""
    events_kept: int = Field(500_000, ge=1_000)
    """Latest events kept for readers and sinks that reconnect; about 0.5 kB each."""
    mqtt_url: str | None = None
    """MQTT broker that receives inspections: mqtt://HOST:PORT, or mqtts://HOST:PORT with TLS."""
    mqtt_user: str | None = None
    """User name at the broker."""
    mqtt_password: SecretStr | None = None
    """Password at the broker."""
    mqtt_ca: Path | None = None
    """PEM file of the authority that signed the broker's certificate."""
    mqtt_topic: str = "flowgauge/{station}/{category}/inspection"
    """Topic of an inspection; may contain {station}, {category} and {decision}."""
    mqtt_status_topic: str = "flowgauge/status"
    """Retained topic of the server's state, online or offline."""
    webhooks: Path | None = None
    """YAML file of the webhooks; see docs/how-to/receive-events.md."""
    requests_per_minute: PositiveInt | None = None
    """Requests a minute for keys without a limit of their own."""
    session_hours: float = Field(12, gt=0, le=24 * 31)
    """Hours until a browser must log in again."""
    tls_certificate: Path | None = None
    """PEM file of the server's certificate; needs FLOWGAUGE_TLS_KEY."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    trusted_proxies: str = ""
    """Comma-separated addresses or networks of proxies whose X-Forwarded-For is trusted. Needs keys."""
    drain_seconds: float = Field(0, ge=0, le=600)
    """Seconds between SIGTERM, when /health/ready turns 503, and closing the port."""
    log_format: Literal["text", "json"] = "text"
    """Format of log lines: text for people, json for programs."""
    allow_unauthenticated_network: bool = False
    """Listen beyond this machine, or trust a proxy, without keys: everybody may do everything."""

    @field_validator("trusted_proxies")
    @classmethod
    def _require_addresses(cls, proxies: str) -> str:
        for proxy in filter(None, map(str.strip, proxies.split(","))):
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ValueError(
                    f"must be addresses or networks, such as 10.0.0.0/24, separated by commas; {error}"
                ) from error
        return proxies

    @field_validator("import_folders")
    @classmethod
    def _require_absolute(cls, folders: str) -> str:
        for folder in filter(None, map(str.strip, folders.split(","))):
            if not Path(folder).is_absolute() or Path(folder) == Path("/"):
                raise ValueError("must be absolute paths, such as /data/images, separated by commas")
        return folders

    @model_validator(mode="after")
    def _validate_combinations(self) -> Self:
        if self.store is not None:
            try:
                require_store_url(self.store)
            except StoreError as error:  # the message of a field would show a password
                raise ValueError(f"FLOWGAUGE_STORE: {error}") from None
            if not (self.database or "").startswith("postgresql"):
                raise ValueError(
                    "FLOWGAUGE_STORE needs FLOWGAUGE_DATABASE=postgresql://USER:PASSWORD@HOST/NAME: servers "
                    "that share files share their database too"
                )
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
                f"max_items {self.max_items} is more than queue_images {self.queue_images}: a request with "
                f"that many images would always be refused; set FLOWGAUGE_MAX_ITEMS to {self.queue_images} "
                f"or less, or FLOWGAUGE_QUEUE_IMAGES to {self.max_items} or more"
            )
        return self

    @property
    def import_roots(self) -> list[Path]:
        """Folders from which images may be imported."""
        return [Path(folder) for folder in filter(None, map(str.strip, self.import_folders.split(",")))]

    @property
    def max_request_bytes(self) -> int:
        """Limit on the bytes of a request with several images."""
        return max(self.max_bytes, self.queue_bytes // 2)

    @property
    def unlimited_retention(self) -> list[str]:
        """Variables for retention by age that are not set."""
        names = ("retention_pass_days", "retention_review_days", "retention_reject_days")
        return [f"FLOWGAUGE_{name.upper()}" for name in names if getattr(self, name) is None]

    @property
    def engine_cache_folder(self) -> Path:
        return self.engine_cache or self.history / "engines"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.sqlite_file}"

    @property
    def has_database(self) -> bool:
        """True if the database may exist. SQLite creates a missing file, so check before opening it."""
        return self.database is not None or self.sqlite_file.exists()

    @property
    def sqlite_file(self) -> Path:
        """File of the default database."""
        return self.history.absolute() / "history.sqlite"


class SettingsError(ValueError):
    """A setting is out of range, or settings do not fit together."""


def load_settings(**given: Any) -> Settings:
    """Load the settings of a command.

    Raises:
        SettingsError: one line per fault, naming the variable.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(map(_explain, error.errors()))) from error


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Describe each FLOWGAUGE_ variable that nothing reads: misspelt, or of another version."""
    known = [name.upper() for name in (*Settings.model_fields, *_OTHER_VARIABLES)]
    lines = []
    for variable in environment:
        name = variable.upper().removeprefix(_PREFIX)
        if variable.upper().startswith(_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {_PREFIX}{close[0]}?" if close else ""
            lines.append(f"{variable} is not a setting and has no effect{hint}")
    return lines


def _explain(item: ErrorDetails) -> str:
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    return f"{_PREFIX}{str(item['loc'][0]).upper()}: {message}; got {item['input']!r}"
