"""What a tagsvc can be told. Flags, else `TIDINGS_TAGSVC_<SETTING>`, else these defaults."""

from pydantic import Field

from mesh.business import BusinessSettings
from mesh.settings import environment

_MIB = 1024 * 1024


class TagsvcSettings(BusinessSettings):
    """Settings of one tagsvc."""

    model_config = environment("tagsvc")

    port: int = Field(9091, ge=0, le=65535, description="gRPC port for businesses, behind the door; 0 picks a free one")
    mesh_port: int = Field(0, ge=0, le=65535, description="gRPC port for the mesh, open unless mesh_ca is set; 0 picks a free one")

    max_tags: int = Field(10_000, ge=1, description="tags there may be, and so many aliases, and so many combinations")
    kept_snapshots: int = Field(64, ge=1, description="newest snapshots that can be asked for")
    kept_snapshot_bytes: int = Field(
        256 * _MIB, ge=0, description="bytes that these hold besides the newest; past it fewer are kept"
    )
    pinned_snapshots: int = Field(16, ge=1, description="older snapshots kept because somebody reads them page by page")
    kept_records: int = Field(4096, ge=1, description="newest changes kept in memory, for watchers that come back")
    kept_record_bytes: int = Field(64 * _MIB, ge=_MIB, description="bytes of these changes; past it fewer are kept")
    checkpoint_records: int = Field(1000, ge=1, description="changes after which a checkpoint is made")
    checkpoint_bytes: int = Field(64 * _MIB, ge=1, description="bytes of changes after which a checkpoint is made")

    write_queue: int = Field(1024, ge=1, description="changes waiting to be logged; when full, they are refused as OVERLOADED")
    write_seconds: float = Field(10.0, gt=0, description="how long a change may wait for a store before it is refused")
    request_seconds: float = Field(10.0, gt=0, description="how long a query may wait for a store before it is refused")
    mapping_chunks: int = Field(16, ge=1, description="chunks of mappings in work, over all streams; others wait to be read")
    cached_users: int = Field(1_000_000, ge=1000, description="users' ordinals kept in memory, about 200 bytes each")
    evaluations: int = Field(32, ge=1, description="large expressions in work or waiting; past it they are refused as OVERLOADED")
