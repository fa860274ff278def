"""Write gen/LANGUAGE from proto/: python, typescript, go or java.

    python scripts/generate.py LANGUAGE [--output DIR]

Python's plugins are in the virtual environment. The others are fetched once into build/plugins by their ecosystem's own client:
npm, go, and mvn. Only the entries of buf.gen.yaml that write to gen/LANGUAGE are run.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGINS = Path("build/plugins").absolute()
PROTOC_GEN_ES = "@bufbuild/protoc-gen-es@2"
GO_PLUGINS = ["google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.10", "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.5.1"]
JAVA_PLUGINS = {
    "protoc": "com.google.protobuf:protoc:4.33.0:exe:linux-x86_64",
    "protoc-gen-grpc-java": "io.grpc:protoc-gen-grpc-java:1.76.0:exe:linux-x86_64",
}


def template(language: str) -> str:
    """The part of buf.gen.yaml that writes gen/LANGUAGE."""
    head, _, entries = Path("buf.gen.yaml").read_text().partition("plugins:\n")
    kept = [entry for entry in entries.removeprefix("  - ").split("\n  - ") if f"out: gen/{language}\n" in entry + "\n"]
    return head + "plugins:\n" + "".join(f"  - {entry.rstrip()}\n" for entry in kept)


def fetch(language: str) -> None:
    """Get the language's plugins into build/plugins, unless they are there."""
    PLUGINS.mkdir(parents=True, exist_ok=True)
    if language == "typescript" and not (PLUGINS / "node_modules").exists():
        need("npm")
        run("npm", "install", "--silent", "--prefix", str(PLUGINS), PROTOC_GEN_ES)
    elif language == "go" and not (PLUGINS / "protoc-gen-go-grpc").exists():
        need("go")
        for plugin in GO_PLUGINS:
            run("go", "install", plugin, env={**os.environ, "GOBIN": str(PLUGINS)})
    elif language == "java" and not (PLUGINS / "protoc-gen-grpc-java").exists():
        need("mvn")
        for name, artifact in JAVA_PLUGINS.items():
            fetch_artifact(name, artifact)


def fetch_artifact(name: str, artifact: str) -> None:
    """Get one executable from Maven's repository."""
    with tempfile.TemporaryDirectory() as folder:
        run("mvn", "-q", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
        (fetched,) = Path(folder).iterdir()
        shutil.copy(fetched, PLUGINS / name)
    (PLUGINS / name).chmod(0o755)


def need(tool: str) -> None:
    """Exit with what to do when a tool is missing."""
    if shutil.which(tool) is None:
        sys.exit(f"generate: {tool} is needed to fetch the plugins for this language; install it first")


def run(*command: str, env: dict[str, str] | None = None) -> None:
    """Run a command; exit as it does when it fails."""
    done = subprocess.run(command, env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"generate: {' '.join(command[:3])} … failed; its message is above")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Write gen/LANGUAGE from proto/.")
    parser.add_argument("language", choices=["python", "typescript", "go", "java"])
    parser.add_argument("--output", default=".", help="folder under which gen/LANGUAGE is written")
    options = parser.parse_args()
    fetch(options.language)
    path = os.pathsep.join([str(PLUGINS), str(PLUGINS / "node_modules/.bin"), os.environ["PATH"]])
    target = Path(options.output, "gen", options.language)
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as chosen:
        chosen.write(template(options.language))
        chosen.flush()
        run("buf", "generate", "--template", chosen.name, "--output", options.output, env={**os.environ, "PATH": path})


if __name__ == "__main__":
    main()
