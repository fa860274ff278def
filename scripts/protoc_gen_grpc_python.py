"""A protoc plugin that gives buf the gRPC code generator which lives inside grpcio-tools and can't be called by itself.

Reads a CodeGeneratorRequest on stdin, lets grpcio-tools write into a temporary folder, and answers with what it wrote.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: CodeGeneratorRequest) -> CodeGeneratorResponse:
    """Return the `_pb2_grpc.py` files for the request's files that define services."""
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        arguments = ["protoc", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={folder}"]
        if protoc.main([*arguments, *request.file_to_generate]) != 0:
            return CodeGeneratorResponse(error="grpcio-tools could not generate; its message is above")
        with_services = {f.name for f in request.proto_file if f.service}
        return CodeGeneratorResponse(
            supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL,
            file=[_file(Path(folder), name) for name in request.file_to_generate if name in with_services],
        )


def _file(folder: Path, proto: str) -> CodeGeneratorResponse.File:
    name = proto.removesuffix(".proto") + "_pb2_grpc.py"
    return CodeGeneratorResponse.File(name=name, content=(folder / name).read_text())


if __name__ == "__main__":
    answer = generate(CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(answer.SerializeToString())
