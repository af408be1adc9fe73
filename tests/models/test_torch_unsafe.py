"""Nothing that stands in a file is ever run, whatever it is."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from paramrob.errors import ModelError, ParamrobError, UnsafeModelError
from paramrob.models.load import load
from paramrob.models.torch_archive import Archive
from paramrob.models.torch_file import read_torch
from tests.models.torch_crafted import (
    ATTACKS,
    Command,
    runs,
    saved,
    small,
    state_attack,
    unzipped,
    with_pickle,
    zipped,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_no_pickle_runs_a_command(attack: Callable[[Path], bytes], tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    data = attack(marker)
    assert runs(data, marker), "the crafted file is harmless: the test would prove nothing"
    file = tmp_path / "model.pt"
    file.write_bytes(data)
    for trust in (False, True):
        with pytest.raises(UnsafeModelError, match="export it to ONNX"):
            load(file, trust=trust)
    assert not marker.exists()


def test_the_error_names_the_class_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match=r"'posix\.system'.*ONNX.*state_dict\(\)"):
        read_torch(state_attack(tmp_path / "marker"))


class Own(torch.nn.Module):
    """A module of the user's own."""


def test_a_users_own_class_is_named() -> None:
    with pytest.raises(UnsafeModelError, match=r"'(tests\.models\.)?test_torch_unsafe\.Own'"):
        read_torch(saved(Own()))


def test_known_layers_without_support_are_named() -> None:
    with pytest.raises(ModelError, match=r"torch\.nn\.modules\.conv\.Conv3d.*paramrob reads"):
        read_torch(saved(torch.nn.Sequential(torch.nn.Conv3d(1, 1, 1))))


def test_a_script_is_refused_unless_trusted(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.jit.script(small()).save(str(file))  # type: ignore[no-untyped-call]
    with pytest.raises(UnsafeModelError, match=r"TorchScript.*ONNX.*--trust"):
        load(file)
    assert load(file, trust=True).network.architecture == "2-3-1"


def test_a_crafted_script_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(small()), buffer)
    entries = unzipped(buffer.getvalue())
    for name in ("data.pkl", "constants.pkl"):
        entries[name] = pickle.dumps(Command(marker), protocol=2)
    file = tmp_path / "model.pt"
    file.write_bytes(zipped(entries))
    with pytest.raises(UnsafeModelError):
        load(file)
    assert not marker.exists()


def test_opcodes_that_call_nothing_known_are_refused(tmp_path: Path) -> None:
    bad = {
        "a computed function": b"\x80\x02X\x01\x00\x00\x00f)R.",
        "a computed class": b"\x80\x02X\x01\x00\x00\x00f)\x81.",
        "an extension code": b"\x80\x02\x82\x01.",
        "state on a list": b"\x80\x02]}b.",
    }
    for content in bad.values():
        with pytest.raises(UnsafeModelError):
            read_torch(with_pickle(content))


def test_absurd_pickles_end_in_an_error() -> None:
    names = b"ctorch.nn.modules.container\nSequential\n"
    state = b"}(X\x0b\x00\x00\x00_parameters}X\x08\x00\x00\x00_buffers}X\x08\x00\x00\x00_modules}"
    doubled = b"\x80\x02" + names + b")\x81" + state + b"ubq\x00"
    for _ in range(60):  # each level holds the one below twice
        inner = b"(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u"
        doubled += names + b")\x81" + state + inner + b"ubq\x00"
    bad = {
        "a tree that doubles at each level": doubled + b".",
        "a huge memo index": b"\x80\x02Nr\xff\xff\xff\x7f.",
        "a missing memo entry": b"\x80\x02h\x07.",
        "a string longer than the file": b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x.",
        "no stop": b"\x80\x02N",
        "nothing on the stack": b".",
        "no mark": b"\x80\x02t.",
        "a tuple as key": b"\x80\x02})Ns.",
        "nested tuples": b"\x80\x02)" + b"2\x86" * 500 + b"q\x00}h\x00Ns.",
        "a huge integer": b"\x80\x02\x8b" + struct.pack("<i", 10_000) + b"\x01" * 10_000 + b".",
        "not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    }
    for content in bad.values():
        with pytest.raises(ParamrobError):
            read_torch(with_pickle(content))


def test_compressed_and_lying_zip_files_are_refused() -> None:
    entries = unzipped(saved(small()))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"a/{name}", content)
        archive.writestr("a/data/9", bytes(2**20))
    with pytest.raises(ModelError, match="compressed"):
        read_torch(target.getvalue())
    honest = zipped(entries)
    start = honest.rindex(b"PK\x01\x02", 0, honest.index(b"data.pkl", honest.index(b"PK\x01\x02")))
    lying = bytearray(honest)
    lying[start + 20 : start + 28] = struct.pack("<II", 2**31, 2**31)
    with pytest.raises(ModelError, match="more than it holds"):
        read_torch(bytes(lying))


def test_an_entry_twice_is_refused() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"\x80\x02N.")
    with pytest.raises(ModelError, match="twice"):
        Archive(target.getvalue())


@pytest.fixture
def exported(tmp_path: Path) -> dict[str, bytes]:
    file = tmp_path / "small.pt2"
    batch = torch.export.Dim("batch")
    shapes = ({0: batch},)
    torch.export.save(
        torch.export.export(small(), (torch.zeros(2, 2),), dynamic_shapes=shapes), file
    )
    return unzipped(file.read_bytes())


def test_expressions_in_an_exported_program_are_not_evaluated(
    exported: dict[str, bytes], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    program = exported["models/model.json"].decode()
    (symbol,) = {
        part["as_expr"]["expr_str"]
        for value in json.loads(program)["graph_module"]["graph"]["tensor_values"].values()
        for part in value["sizes"]
        if "as_expr" in part
    }
    attack = f"__import__('os').system('touch {marker}') or {symbol}"
    crafted = program.replace(json.dumps(symbol), json.dumps(attack))
    assert crafted != program
    file = tmp_path / "model.pt2"
    file.write_bytes(zipped(exported | {"models/model.json": crafted.encode()}, "small"))
    with suppress(Exception):  # what matters is whether the command ran
        torch.export.load(file)
    ran = marker.exists()
    marker.unlink(missing_ok=True)
    assert ran, "torch.export.load no longer evaluates expressions: craft another file"
    assert load(file).network.architecture == "2-3-1"
    assert not marker.exists()


def test_a_pickled_weight_in_an_exported_program_is_not_run(
    exported: dict[str, bytes], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    index = json.loads(exported["data/weights/model_weights_config.json"])
    entry = index["config"]["0.weight"]
    entry["use_pickle"] = True
    payload = saved(Command(marker))
    assert runs(payload, marker)
    changed = {
        "data/weights/model_weights_config.json": json.dumps(index).encode(),
        f"data/weights/{entry['path_name']}": payload,
    }
    file = tmp_path / "model.pt2"
    file.write_bytes(zipped(exported | changed, "small"))
    with pytest.raises(UnsafeModelError, match="system"):
        load(file)
    honest = saved(torch.arange(6, dtype=torch.float32).reshape(3, 2))
    changed[f"data/weights/{entry['path_name']}"] = honest
    file.write_bytes(zipped(exported | changed, "small"))
    weight = load(file).network.parameters["0.weight"].value
    assert weight.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert not marker.exists()


def test_sample_inputs_and_operators_of_an_exported_program_are_not_run(
    exported: dict[str, bytes], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    file = tmp_path / "model.pt2"
    samples = {"data/sample_inputs/model.pt": saved(Command(marker))}
    file.write_bytes(zipped(exported | samples, "small"))
    assert load(file).network.architecture == "2-3-1"
    program = exported["models/model.json"].replace(
        b'"torch.ops.aten.relu.default"', b'"posix.system"'
    )
    file.write_bytes(zipped(exported | {"models/model.json": program}, "small"))
    with pytest.raises(ModelError, match=r"'relu'.*posix\.system"):
        load(file)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".pickle", ".unknown"])
def test_other_pickles_are_refused(suffix: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    file = tmp_path / f"model{suffix}"
    file.write_bytes(pickle.dumps(Command(marker)))
    with pytest.raises(UnsafeModelError, match=r"paramrob\.load in Python"):
        load(file)
    assert not marker.exists()
