"""A page for each proto package, from the descriptors and the comments in them."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from scripts.reference.markdown import NOTICE, page, table

_PACKAGES = {
    "tandem.asr.v1": "asr.md",
    "tandem.encoder.v1": "encoder.md",
    "tandem.decoder.v1": "decoder.md",
    "tandem.tensor.v1": "tensor.md",
}
_PATH = tuple[int, ...]
# Numbers of fields in descriptor.proto: where source info says that something stands.
_SERVICE, _MESSAGE, _ENUM, _PACKAGE, _SYNTAX = 6, 4, 5, 2, 12
_METHOD, _FIELD, _NESTED, _NESTED_ENUM, _VALUE = 2, 2, 3, 4, 2


def descriptors(root: Path) -> FileDescriptorSet:
    """Of all protos below `root`, with comments."""
    buf = Path(sys.executable).with_name("buf")
    command = [str(buf), "build", str(root), "--as-file-descriptor-set", "-o", "-"]
    return FileDescriptorSet.FromString(subprocess.run(command, check=True, capture_output=True).stdout)


def pages(root: Path) -> dict[str, str]:
    """File name to text."""
    by_package: dict[str, list[FileDescriptorProto]] = defaultdict(list)
    for file in descriptors(root).file:
        if file.package in _PACKAGES:
            by_package[file.package].append(file)
    return {_PACKAGES[package]: _package(package, files) for package, files in sorted(by_package.items())}


def _package(package: str, files: Iterable[FileDescriptorProto]) -> str:
    lines = [f"# {package}", "", NOTICE, ""]
    for file in files:
        lines += _File(file).lines()
    return page(lines)


@dataclass(frozen=True, slots=True)
class _File:
    proto: FileDescriptorProto

    def lines(self) -> Iterator[str]:
        yield from [f"[{self.proto.name}](../../protos/{self.proto.name})", ""]
        yield from [self._comment((_SYNTAX,)) or self._comment((_PACKAGE,)), ""]
        for index, service in enumerate(self.proto.service):
            yield from self._service(service, (_SERVICE, index))
        for index, message in enumerate(self.proto.message_type):
            yield from self._message(message, (_MESSAGE, index), "")
        for index, enum in enumerate(self.proto.enum_type):
            yield from self._enum(enum, (_ENUM, index), "")

    def _comment(self, path: _PATH) -> str:
        for location in self.proto.source_code_info.location:
            if tuple(location.path) == path:
                text = location.leading_comments or location.trailing_comments
                detached = [] if text else list(location.leading_detached_comments)
                return "\n".join(line.strip() for line in (text or "\n".join(detached)).splitlines()).strip()
        return ""

    def _service(self, service: ServiceDescriptorProto, path: _PATH) -> Iterator[str]:
        yield from [f"## {service.name}", "", self._comment(path), ""]
        for index, method in enumerate(service.method):
            asked = ("stream " if method.client_streaming else "") + self._type(method.input_type)
            told = ("stream " if method.server_streaming else "") + self._type(method.output_type)
            yield from [f"### {service.name}.{method.name}", "", f"{asked} → {told}", ""]
            yield from [self._comment((*path, _METHOD, index)), ""]

    def _message(self, message: DescriptorProto, path: _PATH, outer: str) -> Iterator[str]:
        name = f"{outer}{message.name}"
        yield from [f"## {name}", "", self._comment(path), ""]
        rows = [
            [
                f"`{field.name}`",
                str(field.number),
                self._kind(message, field),
                self._comment((*path, _FIELD, index)),
            ]
            for index, field in enumerate(message.field)
        ]
        yield from table(("field", "no.", "type", "what"), rows) if rows else ["No fields.", ""]
        for index, nested in enumerate(message.nested_type):
            yield from self._message(nested, (*path, _NESTED, index), f"{name}.")
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, _NESTED_ENUM, index), f"{name}.")

    def _enum(self, enum: EnumDescriptorProto, path: _PATH, outer: str) -> Iterator[str]:
        yield from [f"## {outer}{enum.name}", "", self._comment(path), ""]
        rows = [
            [f"`{value.name}`", str(value.number), self._comment((*path, _VALUE, index))]
            for index, value in enumerate(enum.value)
        ]
        yield from table(("value", "no.", "what"), rows)

    def _kind(self, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        kind = self._type(field.type_name) if field.type_name else _scalar(field)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"repeated {kind}"
        if field.proto3_optional:
            return f"optional {kind}"
        if field.HasField("oneof_index"):
            return f"{kind}, one of `{message.oneof_decl[field.oneof_index].name}`"
        return kind

    def _type(self, full_name: str) -> str:
        """A link to where a message or enum is described."""
        full_name = full_name.removeprefix(".")
        for package, file in _PACKAGES.items():
            if full_name.startswith(f"{package}."):
                name = full_name.removeprefix(f"{package}.")
                anchor = name.lower().replace(".", "")
                return f"[{name}]({'' if package == self.proto.package else file}#{anchor})"
        return f"`{full_name}`"


def _scalar(field: FieldDescriptorProto) -> str:
    return f"`{FieldDescriptorProto.Type.Name(field.type).removeprefix('TYPE_').lower()}`"
