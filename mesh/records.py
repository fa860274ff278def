"""The record under which a service enters the registry: what others need to reach it.

A port may be mapped (a container's, a proxy's): others are told `advertise_port` then, while the process listens on its own.
"""

from importlib import metadata

from mesh.settings import ServiceSettings
from tidings.common.v1.instance_pb2 import Instance


def instance(
    service: str,
    settings: ServiceSettings,
    instance_id: str,
    *,
    grpc_port: int = 0,
    public_url: str = "",
    capacity: int = 0,
) -> Instance:
    """The record of a process that serves from now on.

    Args:
        service: its name, as in the registry's keys.
        instance_id: new at each start; see `mesh.naming.new_instance_id`.
        grpc_port: where the mesh calls it; 0 for a service that nobody calls.
        public_url: what those outside are told; empty when it faces none.
        capacity: relative to its siblings; 0 means unset.
    """
    record = Instance(
        service=service,
        instance_id=instance_id,
        grpc_address=settings.grpc_address(grpc_port) if grpc_port else "",
        public_url=public_url,
        zone=settings.zone,
        capacity=capacity,
        version=metadata.version("tidings"),
        admin_url=settings.admin_url,
    )
    record.start_time.GetCurrentTime()
    return record
