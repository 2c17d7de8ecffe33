"""Settings of the services: flags, then RECORDER_… variables, then a TOML file, then defaults.

Every field of a settings model has a flag, a variable and a description; `options` makes the flags.
"""

import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_origin

import typer
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from services.runtime import macros as words
from services.runtime import values
from services.runtime.errors import UserError

PREFIX = "RECORDER_"

MAX_CONFIG_BYTES = 1 << 20
"""A settings file is a page of text; something larger was named by mistake."""

Octets = Annotated[int, BeforeValidator(values.octets), Field(ge=0)]
"""A size in octets, written with or without a unit."""

Percentage = Annotated[float, BeforeValidator(values.percentage)]
"""Percent of something, above 0."""

_ADDRESS = AfterValidator(values.address)

Address = Annotated[str, _ADDRESS]
"""host:port"""

_PLACE = AfterValidator(values.place)

Place = Annotated[str, _PLACE]
"""URL of a folder elsewhere."""

_FOLDER = BeforeValidator(values.folder)

Folder = Annotated[Path | str, _FOLDER]
"""A folder on this disk, or as a text the URL of one elsewhere."""

Interface = Annotated[str, AfterValidator(values.interface)]
"""Name of a network interface."""

Names = Annotated[list[str], NoDecode, BeforeValidator(values.split_names)]
"""Names, in a list or with commas between them."""

_MACROS = BeforeValidator(words.read)

Macros = Annotated[dict[str, str], NoDecode, _MACROS]
"""Operators' words of KFL and what they stand for."""

_FILE: ContextVar[dict[str, Any]] = ContextVar("_FILE", default={})  # noqa: B039 - never changed
"""What the settings file says, while `load` makes the settings."""


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    section: ClassVar[str] = ""
    """Table of the settings file that is for this service alone."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level of the lines that are logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto",
        description="Log for people (console) or programs (json); auto looks for a terminal.",
    )
    grace_seconds: float = Field(
        25.0, ge=0, le=3600, description="Longest time to drain after SIGTERM, in seconds."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then variables, then what `load` read from a file. No .env, no secrets folder."""
        del dotenv_settings, file_secret_settings
        from_file = InitSettingsSource(settings_cls, init_kwargs=_FILE.get())
        return (init_settings, env_settings, from_file)


class SchedulerSettings(ServiceSettings):
    """Settings of the scheduler."""

    section: ClassVar[str] = "scheduler"

    listen: Address = Field(
        "127.0.0.1:8897", description="Address to serve gRPC on; port 0 is free."
    )
    data: Path = Field(Path(".data"), description="Folder of jobs and recordings.")
    storage_limit: Octets = Field(
        500 << 20, description="Most octets that all recordings together may take, as in 500Mi."
    )
    database_url: str = Field(
        "",
        repr=False,
        description="PostgreSQL that keeps the jobs, as in postgresql://user:password@host/name, "
        "so that several schedulers can share them; a file in the data folder if not given.",
    )
    advertise: Address | None = Field(
        None,
        description="Address at which other schedulers of that database reach this one; the one "
        "that it listens on if not given, with the name of the host where that is any address.",
    )
    archive: Place = Field(
        "",
        description="Where runs are copied to when they end, hourly and on demand, as in "
        "s3://bucket/prefix or file:///folder; none if not given. Credentials, region and endpoint "
        "come from the AWS_ variables.",
    )
    storage: Place = Field(
        "",
        description="Where recordings live, as in s3://bucket/prefix: what is finished goes there "
        "and not only for a copy, and the data folder has what is being recorded; the data folder "
        "has all if not given.",
    )
    macros: Macros = Field({}, description=words.HELP)


class QuerySettings(ServiceSettings):
    """Settings of the query service."""

    section: ClassVar[str] = "query"

    listen: Address = Field(
        "127.0.0.1:8898", description="Address to serve gRPC on; port 0 is free."
    )
    data: Annotated[list[Folder], NoDecode, BeforeValidator(values.split_names)] = Field(
        [Path(".data")],
        min_length=1,
        description="Folder of recordings, only read; may be repeated, or several with commas, "
        "where several schedulers share the jobs and each has a folder. Also an archive, as in "
        "s3://bucket/prefix, for the runs that are in no folder any more.",
    )
    storage: Place = Field(
        "", description="Where recordings live whose scheduler has this setting; the same URL."
    )
    scheduler: Annotated[list[Address], NoDecode, BeforeValidator(values.split_names)] = Field(
        ["127.0.0.1:8897"],
        min_length=1,
        description="Address of the scheduler whose agents see live traffic; may be repeated, or "
        "several with commas, of schedulers that share their jobs: each has agents of its own.",
    )
    live_window: float = Field(
        300.0, gt=0, le=3600, description="Seconds of live traffic that can be asked for."
    )
    live_linger: float = Field(
        300.0,
        ge=0,
        le=3600,
        description="Seconds that agents go on for live traffic after the last viewer.",
    )
    live_memory: Octets = Field(
        64 << 20, ge=1 << 20, description="Most memory for live traffic; then the oldest goes."
    )
    cache_limit: Octets = Field(
        1 << 30, ge=1 << 20, description="Most octets of archived files that are kept on disk."
    )
    cache: Path | None = Field(
        None, description="Folder to keep them in; the system's for temporary files if not given."
    )
    memory_limit: Octets = Field(
        512 * 10**6, ge=32 << 20, description="Most memory of the query engine, as in 512MB."
    )
    threads: int = Field(2, ge=1, le=256, description="Threads of the query engine.")
    deadline_seconds: float = Field(
        60.0, gt=0, le=86400, description="A question that takes longer is ended."
    )
    macros: Macros = Field({}, description=words.HELP)


class GatewaySettings(ServiceSettings):
    """Settings of the gateway."""

    section: ClassVar[str] = "gateway"

    listen: Address = Field(
        "127.0.0.1:8899", description="Address to serve HTTP on; port 0 is free."
    )
    scheduler: Address = Field("127.0.0.1:8897", description="Address of the scheduler.")
    query: Address = Field("127.0.0.1:8898", description="Address of the query service.")
    hosts: Names = Field(
        [],
        description="Name by which this server is called, beside addresses and localhost; may be "
        "repeated, or several with commas; * is any.",
    )
    cors_origins: Names = Field(
        [],
        description="Origin of web pages that may call, as in https://shop.example.com; may be "
        "repeated, or several with commas; * is any; none if not given.",
    )
    streams: int = Field(128, ge=1, le=1024, description="Most streams of answers at once.")
    deadline_seconds: float = Field(
        60.0, gt=0, le=86400, description="An answer that is no stream and takes longer is ended."
    )


class CaptureSettings(ServiceSettings):
    """Settings of a capture agent."""

    section: ClassVar[str] = "capture"

    scheduler: Annotated[list[Address], NoDecode, BeforeValidator(values.split_names)] = Field(
        ["127.0.0.1:8897"],
        min_length=1,
        description="Address of the scheduler that hands out jobs and takes data; may be repeated, "
        "or several with commas, of schedulers that share their jobs: one that is away is replaced "
        "by the next.",
    )
    node: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=253,
        description="Name of the node that this agent captures on; the host's name if not given.",
    )
    node_ip: str = Field("", max_length=64, description="Address of that node.")
    kube: str = Field(
        "",
        max_length=4096,
        description="Who knows the names of pods and services: in-cluster, for an agent in a pod, "
        "or the path of a kubeconfig; only addresses are recorded if not given.",
    )
    targets: Path | None = Field(
        None,
        description="File that says whose traffic is captured, as JSON with regex (of pods), "
        "namespaces and excludedNamespaces; it may change meanwhile. All traffic if not given.",
    )
    interface: Annotated[list[Interface], NoDecode, BeforeValidator(values.split_names)] = Field(
        ["any"],
        min_length=1,
        description="Interface to capture on, or any; may be repeated, or several with commas, and "
        "have wildcards, as in veth*, for interfaces that come and go.",
    )
    listen: Address | None = Field(
        None, description="Address for health checks by gRPC; none are served if not given."
    )
    metrics: Address | None = Field(
        None, description="Address for /metrics by HTTP, for Prometheus; none if not given."
    )
    workers: int = Field(
        1, ge=1, le=64, description="Processes that share the packets of this node, by flow."
    )
    bpf: str = Field(
        "",
        description="Capture what this filter keeps, in the language of pcap-filter(7), instead of "
        "what the jobs need. Takes libpcap.",
    )
    snaplen: int = Field(
        262_144, ge=64, le=262_144, description="Octets captured of each frame; the rest is lost."
    )
    sample: Percentage = Field(
        100,
        description="Percent of the streams that are looked at, each of them whole; agents with "
        "the same number choose the same ones.",
    )
    replay: Path | None = Field(
        None, description="Take frames from this pcap or pcapng file instead of an interface."
    )
    most_flows: int = Field(
        1 << 17,
        ge=1 << 10,
        le=1 << 22,
        description="Flows followed at once by each worker, rounded up to a power of two; each may "
        "take 0.9 KiB.",
    )
    packet_memory: Octets = Field(
        256 << 20, ge=1 << 20, description="Memory for packets whose stream has not matched yet."
    )
    packet_disk: Octets = Field(
        0,
        description="Keep these packets in a file of this size instead; it reaches back longer.",
    )
    packet_folder: Path = Field(
        Path("/var/tmp"),  # noqa: S108 - the file has no name
        description="Folder on a disk of this node for that file.",
    )
    ring_memory: Octets = Field(
        64 << 20,
        ge=1 << 20,
        description="Memory of the ring that the kernel fills, each interface.",
    )
    uplink_memory: Octets = Field(
        64 << 20, ge=1 << 20, description="Memory for batches that the scheduler has yet to store."
    )
    spool: Path | None = Field(
        None,
        description="Folder on this node for batches that the scheduler has yet to store, so that "
        "an agent that ends forgets none; memory alone if not given.",
    )
    spool_limit: Octets = Field(
        1 << 30, ge=64 << 20, description="Most octets of that folder; then the oldest go."
    )
    body_limit: Octets = Field(
        2 << 20,  # the most that a job can ask for, so that jobs decide
        le=1 << 30,
        description="Most octets of a body that are kept, whatever a job asks.",
    )


S = TypeVar("S", bound=ServiceSettings)

_MODELS: tuple[type[ServiceSettings], ...] = (
    SchedulerSettings,
    QuerySettings,
    GatewaySettings,
    CaptureSettings,
)


def load(model: type[S], flags: Mapping[str, Any], config: Path | None = None) -> S:
    """Return settings from flags (None is not given), variables, the file and defaults.

    Raises UserError with a sentence for each wrong value, that says where it came from.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != []}
    token = _FILE.set({} if config is None else _read_config(model, config))
    try:
        return model(**given)
    except ValidationError as error:
        wrong = [_sentence(item, given, config) for item in error.errors()]
        raise UserError(" ".join(dict.fromkeys(wrong))) from None
    finally:
        _FILE.reset(token)


def _read_config(model: type[ServiceSettings], path: Path) -> dict[str, Any]:
    """Return what the file says to this service: its own table over what is outside of tables."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG_BYTES + 1)
        if len(raw) > MAX_CONFIG_BYTES:
            raise UserError(f"The settings file {path} is larger than {MAX_CONFIG_BYTES} octets.")
        everything = tomllib.loads(raw.decode())
    except OSError as error:
        raise UserError(f"Cannot read the settings file {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file {path} is not TOML: {error}.") from None
    for_all = {
        key: value
        for key, value in everything.items()
        if not isinstance(value, dict) or key == "macros"
    }
    own = everything.get(model.section, {})
    # What stands outside of tables is for all services: a service leaves out what it does not know.
    known = {key: value for key, value in for_all.items() if key in model.model_fields}
    nobodys = set(for_all) - set().union(*(m.model_fields for m in _MODELS))
    if nobodys:
        raise UserError(f"The settings file {path} has {sorted(nobodys)[0]!r}: no such setting.")
    return known | (own if isinstance(own, dict) else {})


def _sentence(item: ErrorDetails, given: Mapping[str, Any], config: Path | None) -> str:
    """Return a sentence for one of pydantic's findings; it begins with where the value was."""
    name = str(item["loc"][0]) if item["loc"] else ""
    variable = f"{PREFIX}{name.upper()}"
    if name in given:
        source = _flag(name)
    elif variable in {key.upper() for key in os.environ}:
        source = variable
    else:
        source = f"{name!r} in {config}"
    if item["type"] == "extra_forbidden":
        return f"{source}: no such setting."
    if item["type"] == "value_error":
        return f"{source}: {item['msg'].removeprefix('Value error, ')}"
    return f"{source}: {item['input']!r} is not right: {item['msg']}."


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _help(name: str, field: FieldInfo) -> str:
    """Return the flag's help: what it means, its variable, its default."""
    default = field.get_default()
    notes = f"env: {PREFIX}{name.upper()}"
    if default not in (None, "", {}) and not field.default_factory:
        if isinstance(default, list):
            default = ",".join(map(str, default))
        elif _is_octets(field):
            default = values.written(default)
        notes += f"; default: {default}"
    return f"{field.description} ({notes})"


def _kind(field: FieldInfo) -> str:
    """Return the word that stands for the value in the help."""
    if _is_octets(field):
        return "SIZE"
    if _ADDRESS in field.metadata:
        return "HOST:PORT"
    if _PLACE in field.metadata:
        return "URL"
    if _MACROS in field.metadata:
        return "JSON|FILE"
    if get_origin(field.annotation) is Literal:
        return "|".join(get_args(field.annotation))
    kinds = {int: "NUMBER", float: "NUMBER", Path: "FOLDER"}
    if get_origin(field.annotation) is list and _is_address(field):
        return "HOST:PORT"
    if get_origin(field.annotation) is list and Folder in get_args(field.annotation):
        return "FOLDER"
    if field.annotation in kinds:
        return kinds[field.annotation]
    return "FILE" if Path in get_args(field.annotation) else "TEXT"


def _is_address(field: FieldInfo) -> bool:
    return any(_ADDRESS in getattr(each, "__metadata__", ()) for each in get_args(field.annotation))


def _is_octets(field: FieldInfo) -> bool:
    return any(isinstance(m, BeforeValidator) and m.func is values.octets for m in field.metadata)


def options(model: type[S], run: Callable[[S], int | None]) -> Callable[..., None]:
    """Return a typer command with a flag for each field of `model`, that loads it and calls `run`.

    A settings error is one line on stderr and exit code 2.
    """
    parameters = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None if get_origin(field.annotation) is list else str | None,
                typer.Option(
                    _flag(name), help=_help(name, field), show_default=False, metavar=_kind(field)
                ),
            ],
        )
        for name, field in model.model_fields.items()
    ]
    parameters.append(
        Parameter(
            "config",
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                Path | None,
                typer.Option(
                    "--config",
                    help=f"TOML file with these settings; its table {model.section} is for this "
                    f"service alone. (env: {PREFIX}CONFIG)",
                    envvar=f"{PREFIX}CONFIG",
                    show_envvar=False,
                ),
            ],
        )
    )

    def command(*, config: Path | None, **flags: Any) -> None:
        try:
            settings = load(model, flags, config)
        except UserError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(2) from None
        raise typer.Exit(run(settings) or 0)

    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = model.__doc__
    return command
