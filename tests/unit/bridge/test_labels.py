"""Labels of a Postgres enum and values of a protobuf enum."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import EnumDescriptor

from bridge import labels


def enum(name: str, *values: str) -> EnumDescriptor:
    file = descriptor_pb2.FileDescriptorProto(name="e.proto", package="e", syntax="proto3")
    described = file.enum_type.add(name=name)
    for number, value in enumerate(values):
        described.value.add(name=value, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindEnumTypeByName(f"e.{name}")


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("Mood", "MOOD_GOOD", "good"),
        ("Mood", "MOOD_GOOD", "Good"),
        ("Mood", "MOOD_GOOD", "MOOD_GOOD"),
        ("Mood", "good", "good"),
        ("Mood", "MOOD_VERY_GOOD", "very good"),
        ("Mood", "MOOD_VERY_GOOD", "very-good"),
        ("Mood", "MOOD_VERY_GOOD", "veryGood"),
        ("Mood", "MOOD_VERY_GOOD", "VERY_GOOD"),
        ("TaskState", "TASK_STATE_DONE", "done"),
        ("HTTPMode", "HTTP_MODE_V2", "v2"),
        ("Mood", "MOOD_3D", "3d"),
    ],
)
def test_a_label_is_a_value(name: str, value: str, label: str) -> None:
    described = enum(name, "NONE", value)
    assert labels.number_of(label, described) == 1
    assert labels.converter(described)(label) == 1
    assert labels.mismatch([label], described) is None


def test_the_very_name_goes_first() -> None:
    assert labels.number_of("good", enum("Mood", "NONE", "MOOD_GOOD", "good")) == 2


@pytest.mark.parametrize("label", ["GOODNESS", "mood", "é", "", "MOOD"])
def test_a_label_without_a_value(label: str) -> None:
    described = enum("Mood", "MOOD_NONE", "MOOD_GOOD")
    assert labels.mismatch(["good", label], described) == f"Mood has no value for {label!r}"
    with pytest.raises(ValueError, match="Mood has no value for"):
        labels.converter(described)(label)


def test_labels_that_share_a_value() -> None:
    found = labels.mismatch(["so so", "so-so"], enum("Mood", "NONE", "MOOD_SO_SO"))
    assert found == "Mood has the same value for 'so so' and 'so-so'"
