"""Weights: how two machines know they hold the same, and the folder they are kept in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flows.fastflow.backbones import sources as backbones
from flows.fastflow.backbones.weights import (
    NAMED,
    find_kept_files,
    find_marked_files,
    load_kept_weights,
    save_weights,
    weights_digest,
)
from tests.app.support.full_disk import limit_file_size
from tests.flows.fastflow.untrained import NAME, state, weights


class TestDigest:
    def test_it_is_the_same_in_every_container(self, tmp_path: Path) -> None:
        tensors = state()
        save_file(tensors, tmp_path / "a.safetensors")
        torch.save(tensors, tmp_path / "b.pth")
        torch.save({"state_dict": tensors}, tmp_path / "c.pt")
        torch.save({"model": tensors}, tmp_path / "e.pth")
        torch.save(dict(sorted(tensors.items(), reverse=True)), tmp_path / "d.pth")
        digests = {backbones.find_weights(NAME, file=file).sha256 for file in tmp_path.iterdir()}
        assert digests == {weights_digest(tensors)}

    def test_whatever_changes_changes_it(self) -> None:
        tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64)}
        changed = [
            tensors | {"a": torch.zeros(3, 2)},
            tensors | {"a": torch.zeros(2, 3, dtype=torch.float64)},
            tensors | {"a": torch.eye(2, 3) * 1e-30},
            tensors | {"b": torch.ones((), dtype=torch.int64)},
            {"a": tensors["a"], "c": tensors["b"]},
            {"a": tensors["a"]},
        ]
        digests = [weights_digest(t) for t in [tensors, *changed]]
        assert len(set(digests)) == len(digests)
        assert weights_digest(dict(reversed(tensors.items()))) == digests[0]


class TestSave:
    def test_it_can_be_found_again(self, tmp_path: Path) -> None:
        one = weights()
        path = save_weights(one, tmp_path / "new" / "folder")
        assert path.name == f"{NAME}-{one.sha256[:12]}.safetensors"
        found = backbones.find_weights(NAME, folder=path.parent, sha256=one.sha256)
        assert found.sha256 == one.sha256
        assert all(torch.equal(found.state[key], one.state[key]) for key in one.state)

    def test_write_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        one = weights()
        with limit_file_size(1000), pytest.raises(OSError, match="File too large"):
            save_weights(one, tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestMarked:
    def test_it_is_there_for_its_digest_alone(self, tmp_path: Path) -> None:
        one = replace(weights(), named=True)
        path = save_weights(one, tmp_path)
        assert sorted(tmp_path.iterdir()) == [path, path.with_name(path.name + NAMED)]
        assert find_kept_files(NAME, tmp_path, None) == []
        assert find_kept_files(NAME, tmp_path, one.sha256) == find_marked_files(NAME, tmp_path) == [path]
        assert load_kept_weights(NAME, tmp_path, one.sha256) is not None


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def _others(path: Path) -> None:
    save_file(state(1), path)


def _a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class TestKept:
    @pytest.mark.parametrize("damage", [Path.unlink, _cut, _others, _a_folder])
    def test_nothing_else_is(self, damage: Callable[[Path], object], tmp_path: Path) -> None:
        one = weights()
        damage(save_weights(one, tmp_path))
        assert load_kept_weights(NAME, tmp_path, one.sha256) is None
