"""Settings: from flags, else from the environment (`TIDINGS_<SERVICE>_<SETTING>`), else the default.

A service derives its own class from `ServiceSettings` and names its service; nothing reads the environment anywhere else.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

_MESH_FILES = ("mesh_ca", "mesh_certificate", "mesh_key")


def environment(service: str) -> SettingsConfigDict:
    """The `model_config` of a service's settings."""
    return SettingsConfigDict(
        env_prefix=f"TIDINGS_{service.upper()}_", cli_kebab_case=True, cli_prog_name=f"python -m {service}", extra="forbid"
    )


class ServiceSettings(BaseSettings):
    """What every service can be told."""

    host: str = Field("127.0.0.1", description="address to listen on")
    advertise: str = Field("", description="host that others reach this process under; empty means `host`")
    advertise_port: int = Field(
        0, ge=0, le=65535, description="port that others reach the gRPC server under, where it is mapped; 0 means the port itself"
    )
    registry: str = Field("memory://", description="memory:// or etcd://host:port[,host:port…]")
    cache: str = Field("memory://", description="memory:// (each process by itself) or redis://host:port/db, rediss://…")
    zone: str = Field("", description="failure domain, for topology-aware assignment")
    admin_port: int = Field(0, ge=0, le=65535, description="port of /healthz, /readyz and /metrics; 0 picks a free one")
    admin_url: str = Field("", description="base URL that others reach these under, where it is mapped; empty derives it")
    drain_seconds: float = Field(10.0, ge=0, description="longest time to finish work under way when stopped")
    reflection: bool = Field(True, description="let tools list the gRPC services (a help in development)")
    log_level: str = Field("info", description="debug, info, warning or error")
    log_json: bool = Field(False, description="one JSON object a line instead of coloured text")
    traces: str = Field("", description="OTLP endpoint for traces, for example http://127.0.0.1:4317; empty sends none")

    mesh_ca: str = Field(
        "",
        description="PEM file of the mesh's authority, for mutual TLS; empty: PLAIN TEXT, AND WHOEVER REACHES A PORT MAY CALL",
    )
    mesh_certificate: str = Field("", description="PEM file of this service's certificate, from `tidings certs init`; with mesh_ca")
    mesh_key: str = Field("", description="PEM file of its private key; with mesh_ca")

    @model_validator(mode="after")
    def _check_mesh_files(self) -> Self:
        given = {name: path for name in _MESH_FILES if (path := getattr(self, name))}
        if given and len(given) < len(_MESH_FILES):
            raise ValueError("mesh_ca, mesh_certificate and mesh_key go together: give all three, or none")
        for name, path in given.items():
            if not Path(path).is_file():
                raise ValueError(f"{name}: there is no file {path}")
        return self

    @property
    def advertised_host(self) -> str:
        """The host to register under."""
        return self.advertise or self.host

    def grpc_address(self, port: int) -> str:
        """Where others reach the gRPC server that listens on this port, host:port."""
        return f"{self.advertised_host}:{self.advertise_port or port}"

    @classmethod
    def from_command_line(cls, arguments: list[str] | None = None) -> Self:
        """Read flags, then the environment. `--help` lists the settings; a wrong one exits with what is allowed."""
        try:
            return CliApp.run(cls, cli_args=arguments)
        except ValidationError as error:
            # Not the error's own text, which quotes the values: one of them may be a secret.
            faults = [f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}" for fault in error.errors()]
            raise SystemExit("\n".join(faults)) from None
