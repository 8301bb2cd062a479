from pathlib import Path

import pytest

from tests.training.run_yaml import write
from training.config.load_config import load_config
from training.config.run_config import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "calibration: {target_fpr: 0.001}\nseed: 3\ncalibration: {review_fpr: 0.1}",
            "'calibration' is there twice, first in line 1.*line 3",
        ),
        ("fit:\n  steps: 9\n  tiles: 2\n  steps: 8", "'steps' is there twice, first in line 2.*line 4"),
        ("categories:\n  a: {seed: 1}\n  b: {seed: 2}\n  a: {seed: 3}", "'a' is there twice.*line 2.*line 4"),
    ],
)
def test_duplicate_key_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        load_config(write(tmp_path, text), "grid")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("seed: yes", "seed"),
        ("fit: {epochs: on}", "fit.epochs"),
        ("fit: {learning_rate: true}", "fit.learning_rate"),
        ("feature_cache: {max_gib: On}", "feature_cache.max_gib"),
        ("input_size: [true, 256]", "input_size.0"),
        ("fit: {steps: 0x10}", "fit.steps"),
        ("fit: {steps: 1:30}", "fit.steps"),
        ("fit: {steps: 1__0}", "fit.steps"),
        ("fit: {gradient_clip: 1:30.5}", "fit.gradient_clip"),
        ("fit: {gradient_clip: 1__0.5}", "fit.gradient_clip"),
        ("fit: {gradient_clip: 1.5_}", "fit.gradient_clip"),
    ],
)
def test_text_is_no_number(tmp_path: Path, text: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: Input should be a valid"):
        load_config(write(tmp_path, text))


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    text = "fit: {steps: 1_000, learning_rate: 1e-3, weight_decay: 1.5e-5, gradient_clip: 1_0.5, noise: .5}"
    fit = load_config(write(tmp_path, text)).fit
    assert (fit.steps, fit.learning_rate, fit.weight_decay) == (1000, 1e-3, 1.5e-5)
    assert (fit.gradient_clip, fit.noise) == (10.5, 0.5)


@pytest.mark.parametrize(("text", "word"), [("tensorboard: {}", "off"), ("backbone:\n  weights: {}", "Yes")])
def test_truth_value_is_no_file_or_folder(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)'{word}' is no file or folder.*null for none.*line"):
        load_config(write(tmp_path, text.format(word)))


def test_folder_in_quotes_may_be_called_like_a_truth_value(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, 'backbone: {weights: "off"}')).backbone.weights == Path("off")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("yes", True), ("off", False), ("False", False)])
def test_fields_that_are_true_or_false_take_their_words(tmp_path: Path, word: str, value: bool) -> None:
    assert load_config(write(tmp_path, f"augment: {{hflip: {word}}}")).augment.hflip is value


@pytest.mark.parametrize("name", ["yes", "no", "on", "010"])
def test_category_is_called_as_it_is_written(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"categories: {{{name}: {{seed: 3}}, bottle: {{seed: 4}}}}")
    assert load_config(path, name).seed == 3
