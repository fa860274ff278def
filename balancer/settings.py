"""What a balancer can be told: flags, or TIDINGS_BALANCER_<SETTING>."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from balancer import policies
from mesh.credentials import CredentialSettings
from mesh.settings import environment


class BalancerSettings(CredentialSettings):
    """See each setting's description."""

    model_config = environment("balancer")

    port: int = Field(8080, ge=0, le=65535, description="HTTP port for clients; 0 picks a free one")
    grpc_port: int = Field(9090, ge=0, le=65535, description="gRPC port for edges and operators; 0 picks a free one")
    public_url: str = Field("", description="what others are told, for example https://chat.example.com; empty derives it")
    policy: str = Field("two_choices", description="how an edge is chosen: two_choices or consistent_hash")
    login_url: str = Field("", description="told to a client without a valid token; empty when there is none")
    allowed_origins: list[str] = Field(
        [], description='browser origins that may ask, for example ["https://chat.example"]; ["*"]: any'
    )
    connections_per_ip: int = Field(0, ge=0, description="most connections from one address (IPv6: one /64); 0 is no cap")
    connections_per_user: int = Field(50, ge=0, description="most connections of one user; 0 is no cap")
    # A company or a mobile carrier may stand behind one address, so this holds back floods, not people.
    connects_per_second: float = Field(100.0, ge=0, description="lasting rate of /v1/connect from one address; 0 is no limit")
    connect_burst: int = Field(1000, ge=1, description="requests that one address may make at once, above the lasting rate")
    default_capacity: int = Field(20_000, ge=1, description="connections given to an edge that names no capacity")
    retry_after_seconds: float = Field(2.0, gt=0, description="when to ask again where there was no room; doubled at random")
    rebalance_seconds: float = Field(30.0, ge=0, description="how often to look whether edges should shed; 0 never does")
    rebalance_tolerance: float = Field(
        0.1, ge=0, description="share above the average that an edge may have; consistent_hash itself leaves up to 0.25"
    )
    rebalance_per_second: int = Field(100, ge=1, le=10_000, description="connections moved in all, when edges shed")
    heartbeat_seconds: float = Field(30.0, gt=0, description="told to clients before they know their edge's own interval")
    backoff_base_seconds: float = Field(0.5, gt=0, description="told to clients: first wait before reconnecting")
    backoff_max_seconds: float = Field(30.0, gt=0, description="told to clients: longest wait before reconnecting")
    tls_certificate: str = Field("", description="PEM file with the certificate chain; empty serves plain HTTP")
    tls_key: str = Field("", description="PEM file with the certificate's key")

    @field_validator("policy")
    @classmethod
    def _check_policy(cls, name: str) -> str:
        policies.named(name)
        return name

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together: give both, or neither")
        return self
