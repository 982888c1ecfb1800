"""The mapping file: what it declares, and that each mistake in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor

from bridge.errors import SettingInvalid
from bridge.mapping import load_mapping
from protos.schema_name import schema_name

NOTES = """
[tables."public.notes"]
kind = "note"
message = "zephyr.models.v1.Note"
key = "id"
workspace = "workspace_id"
columns = { id = "id", title = "title" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_maps_every_table_of_zephyr() -> None:
    mapping = load_mapping()
    assert {(t.name, t.kind, t.key, t.workspace, t.envelope_field) for t in mapping.tables.values()} == {
        ("public.workspaces", "workspace", "id", "id", "workspace"),
        ("public.users", "user", "id", None, "user"),
        ("public.memberships", "membership", "id", "workspace_id", "membership"),
        ("public.notes", "note", "id", "workspace_id", "note"),
    }
    for table in mapping.tables.values():
        assert {field for _, field in table.columns} == set(table.message.fields_by_name)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    mapping = load_mapping(write(tmp_path, NOTES))
    table = mapping.tables["public.notes"]
    assert table.columns == (("id", "id"), ("title", "title"))
    assert table.used_columns == ("id", "workspace_id", "title")


def test_a_message_of_ones_own_stands_in_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_models_pb2.py").write_text(
        "from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "file = descriptor_pb2.FileDescriptorProto(name='acme/models.proto', package='acme', syntax='proto3')\n"
        "field = file.message_type.add(name='Thing').field.add(name='id', number=1, type=9, label=1)\n"
        "descriptor_pool.Default().AddSerializedFile(file.SerializeToString())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write(
        tmp_path,
        'modules = ["acme_models_pb2"]\n'
        '[tables."shop.things"]\nkind = "thing"\nmessage = "acme.Thing"\nkey = "id"\ncolumns = { id = "id" }\n',
    )
    table = load_mapping(path).tables["shop.things"]
    assert (table.schema, table.table, table.workspace, table.envelope_field) == (
        "shop",
        "things",
        None,
        "other",
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind = ?\n", "line 1"),
        ("", "tables: declares no table"),
        ("tables = 3", "tables: declares no table"),
        ('colour = "red"\n' + NOTES, "colour: is not known here"),
        (NOTES.replace("public.notes", "notes"), '"notes": write schema and table, such as "public.notes"'),
        (NOTES.replace('kind = "note"\n', ""), '"public.notes".kind: is missing'),
        (NOTES.replace('"note"', "7"), '"public.notes".kind: must be a text'),
        (NOTES.replace('"note"', '"no.te"'), '"no.te" is no kind'),
        (NOTES.replace('"note"', '"_"'), '"_" is no kind'),
        (NOTES.replace("v1.Note", "v1.Nota"), 'there is no message "zephyr.models.v1.Nota"'),
        (NOTES.replace('key = "id"\n', ""), '"public.notes".key: is missing'),
        (NOTES.replace("workspace =", "workspce ="), '"public.notes".workspce: is not known here'),
        (NOTES.replace("workspace_id", ""), '"public.notes".workspace: must be a text'),
        (NOTES.replace('title = "title"', 'title = "titel"'), 'columns.title: zephyr.models.v1.Note has no field "titel"'),
        (NOTES.replace('title = "title"', 'title = "id"'), 'columns.title: "id" is filled from id already'),
        (NOTES.replace("models.v1.Note", "events.v1.Event").replace('id = "id", title = "title"', 'x = "user", title = "note"'),
         'columns.title: "note" and "user" are of one oneof'),
        (NOTES.replace('title = "title"', "title = 3"), "columns.title: must be the name of a field"),
        (NOTES.replace("columns = {", "columns = [{").replace("}", "}]"), "columns: declares no column"),
        (NOTES + NOTES.replace("notes", "drafts"), 'tables."public.drafts".kind: "note" is the kind of public.notes'),
        ('modules = ["nowhere_pb2"]\n' + NOTES, 'modules: "nowhere_pb2" cannot be imported'),
        ("modules = 3\n" + NOTES, "modules: must be a list"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingInvalid) as raised:
        load_mapping(path)
    assert named in raised.value.message
    assert raised.value.message.startswith(str(path))
    assert raised.value.mend
    assert "\n" not in raised.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="cannot be read"):
        load_mapping(tmp_path / "none.toml")


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mapping.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingInvalid, match="malformed"):
        load_mapping(path)


def message(*fields: tuple[int, str, int]) -> Descriptor:
    """A message ``t.T`` with fields of (number, name, type)."""
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    described = file.message_type.add(name="T")
    for number, name, kind in fields:
        described.field.add(name=name, number=number, type=kind, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindMessageTypeByName("t.T")


def test_the_fingerprint_is_the_same_in_every_run() -> None:
    assert schema_name(message((1, "a", 9), (2, "b", 3))) == "t.T/c5abaef878f4"


def test_the_fingerprint_follows_the_fields_and_not_their_order() -> None:
    names = {
        schema_name(message((1, "a", 9), (2, "b", 3))),
        schema_name(message((1, "a", 9), (2, "c", 3))),
        schema_name(message((1, "a", 9), (3, "b", 3))),
        schema_name(message((1, "a", 9), (2, "b", 4))),
        schema_name(message((1, "a", 9))),
    }
    assert len(names) == 5
    assert schema_name(message((2, "b", 3), (1, "a", 9))) in names
