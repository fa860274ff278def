"""What a store can be told."""

from pydantic import Field

from mesh.settings import ServiceSettings, environment


class StoreSettings(ServiceSettings):
    """Settings of the store; `TIDINGS_STORE_<SETTING>` in the environment."""

    model_config = environment("store")

    port: int = Field(9094, ge=0, le=65535, description="gRPC port; 0 picks a free one")
    database: str = Field(
        "sqlite:///data/tidings.sqlite", description="sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"
    )
    connections: int = Field(8, ge=2, le=200, description="most connections to PostgreSQL besides the appender's own")
    history_cache_entries: int = Field(
        0, ge=0, le=1000, description="recent entries of each conversation kept in the cache for readers; 0 keeps none there"
    )
    sweep_seconds: float = Field(60.0, gt=0, description="pause between two rounds of the retention sweeper")
    resend_days: float = Field(7.0, ge=0, description="how long a removed message's client_msg_id is still known for a repeat")
    report_days: float = Field(30.0, ge=0, description="how long it is known of a notification that is over whom it reached")
    answer_days: float = Field(7.0, ge=1, description="how long a repeated request about a notification gets its first answer")
    notification_failures: int = Field(
        5, ge=1, le=1000, description="failed runs of a notification in a row, nobody being sent it, that make it a dead letter"
    )
    dead_letters: int = Field(100_000, ge=1, description="dead letters kept; past it those put aside first are forgotten")
