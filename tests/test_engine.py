from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from artifactgen.device import find_devices, resolve_device, resolve_precision
from artifactgen.engine import Engine, Normalization, finite_rows, is_convolutional
from artifactgen.errors import ConfigError
from artifactgen.introspect.compiling import compile_parts
from artifactgen.introspect.taps import Taps
from artifactgen.models.timm import as_network

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
RNG = np.random.default_rng(0)


def per_channel(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_integers_are_scaled_by_the_range_of_their_type(dtype: torch.dtype) -> None:
    top = torch.iinfo(dtype).max
    x_BCHW = torch.tensor([0, 1, top // 2, top]).view(1, 1, 2, 2).expand(2, 3, 2, 2).to(dtype)
    expected = (x_BCHW.double() / top - per_channel(MEAN)) / per_channel(STD)
    found = Normalization(MEAN, STD)(x_BCHW)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())


def test_floats_are_taken_as_they_are_unless_mean_and_std_are_asked_for() -> None:
    x_BCHW = torch.randn(2, 3, 4, 4) * 100
    assert torch.equal(Normalization(MEAN, STD)(x_BCHW), x_BCHW)
    asked = Normalization(MEAN, STD, of_floats=True)(x_BCHW)
    torch.testing.assert_close(asked, (x_BCHW - per_channel(MEAN)) / per_channel(STD))


def test_one_mean_serves_all_channels() -> None:
    x_BCHW = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    one, three = Normalization((0.5,), (0.2,)), Normalization((0.5,) * 3, (0.2,) * 3)
    assert torch.equal(one(x_BCHW), three(x_BCHW))


def test_8_and_16_bits_of_the_same_grey_are_the_same_to_the_bit() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    wide = grey.astype(np.uint16) * 257
    same = Normalization(MEAN, STD)
    assert torch.equal(same(torch.from_numpy(grey)), same(torch.from_numpy(wide)))


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=4, img_size=32).eval().requires_grad_(False)
    subject = Subject(as_network(model), (32, 32), ("a", "b", "c", "d"), has_head=True)
    bound = {"embeddings": Embedding().bind(subject)}
    cpu = torch.device("cpu")
    return Engine(subject, bound, cpu, "32-true", Normalization(MEAN, STD))


def test_images_of_one_channel_are_repeated(engine: Engine) -> None:
    grey_B1HW = RNG.integers(0, 256, (2, 1, 32, 32), dtype=np.uint8)
    once, thrice = engine(grey_B1HW), engine(np.repeat(grey_B1HW, 3, axis=1))
    assert once.keys() == {"embeddings", "predictions", "probabilities"}
    for name, array in once.items():
        assert np.array_equal(array, thrice[name])


def test_predictions_are_those_of_the_classifier(engine: Engine) -> None:
    images_BCHW = RNG.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    arrays = engine(images_BCHW)
    with torch.no_grad():
        logits_BK = engine.subject.model(engine.normalization(torch.from_numpy(images_BCHW)))
    best_B, predictions_B = logits_BK.softmax(1).max(1)
    assert arrays["predictions"].dtype == np.int64
    assert np.array_equal(arrays["predictions"], predictions_B)
    np.testing.assert_allclose(arrays["probabilities"], best_B, atol=1e-6)


def test_bf16_stays_near_and_gives_float32(engine: Engine) -> None:
    images_BCHW = RNG.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    full = engine(images_BCHW)["embeddings"]
    low = replace(engine, precision="bf16-mixed")(images_BCHW)["embeddings"]
    assert low.dtype == np.float32
    assert 0 < np.abs(low - full).max() < 0.1 * np.abs(full).max()


def test_a_row_is_finite_if_all_of_its_arrays_are() -> None:
    arrays = {
        "a": np.array([[0.0, 1], [np.nan, 1], [2, 2], [3, 3]], np.float32),
        "b": np.array([1, 2, 3, 4]),
        "c": np.array([[[0.0]], [[1]], [[-np.inf]], [[1e38]]]),
    }
    assert finite_rows(arrays, 4).tolist() == [True, False, False, True]
    assert finite_rows({}, 2).tolist() == [True, True]


def test_what_the_device_cannot_do_is_refused() -> None:
    cpu = find_devices("cpu")
    assert (cpu.kind, cpu.gpus) == ("cpu", 0)
    with pytest.raises(ConfigError, match="16-mixed needs a GPU"):
        resolve_precision("16-mixed", cpu)
    assert resolve_precision("auto", replace(cpu, computes_bf16=False)) == "32-true"
    assert resolve_precision("auto", replace(cpu, computes_bf16=True)) == "bf16-mixed"
    assert resolve_precision("bf16-mixed", replace(cpu, computes_bf16=False)) == "bf16-mixed"
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="no CUDA device"):
        resolve_device("gpu")


def random_batch(size: int) -> np.ndarray:
    return RNG.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8)


def full_engine(name: str = "test_vit", **options: object) -> Engine:
    torch.manual_seed(0)
    sized = {"img_size": 32} if name == "test_vit" else {}
    model = timm.create_model(name, num_classes=4, **sized).eval().requires_grad_(False)
    subject = Subject(as_network(model), (32, 32), ("a", "b", "c", "d"), has_head=True)
    kinds = {"embeddings": Embedding(), "gradcam": GradCAM()}
    if name == "test_vit":
        kinds["attention"] = AttentionMaps()
    bound = {name: kind.bind(subject) for name, kind in kinds.items()}
    return Engine(
        subject, bound, torch.device("cpu"), "32-true", Normalization(MEAN, STD), **options
    )


def assert_alike(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, atol=1e-6, rtol=1e-4)


def test_a_batch_too_large_for_the_device_is_taken_in_halves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine, images_BCHW = full_engine(), random_batch(7)
    expected = engine(images_BCHW)

    def have_little_memory(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    engine.subject.model.blocks[2].register_forward_pre_hook(have_little_memory)
    flight = engine.start(images_BCHW)
    assert flight.halved
    assert [rows for rows, _ in flight.parts] == [2, 2, 2, 1]
    assert_alike(flight.arrays(), expected)
    assert "Out of memory with a batch of 7: taking 4." in caplog.text


def test_one_image_too_large_for_the_device_is_an_error() -> None:
    engine = full_engine()

    def have_no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    engine.subject.model.blocks[2].register_forward_pre_hook(have_no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        engine.start(random_batch(4))


def test_batches_are_padded_to_a_fixed_size_and_nothing_of_it_comes_out() -> None:
    engine, images_BCHW = full_engine(), random_batch(3)
    fixed = replace(engine, fixed_batch=5)
    sizes: list[int] = []
    engine.subject.model.patch_embed.register_forward_pre_hook(
        lambda _m, args: sizes.append(len(args[0]))
    )
    assert_alike(fixed(images_BCHW), engine(images_BCHW))
    assert sizes == [5, 3]


def test_a_padded_batch_that_is_too_large_is_padded_less_in_halves() -> None:
    engine, images_BCHW = full_engine(fixed_batch=8), random_batch(5)
    sizes: list[int] = []

    def have_little_memory(_module: object, args: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    engine.subject.model.patch_embed.register_forward_pre_hook(have_little_memory)
    arrays = engine(images_BCHW)
    assert sizes == [8, 3, 3]
    assert_alike(arrays, full_engine()(images_BCHW))


@pytest.mark.parametrize(("name", "expected"), [("test_vit", False), ("resnet18", True)])
def test_only_cnns_have_their_channels_last(name: str, expected: bool) -> None:
    assert is_convolutional(full_engine(name).subject.model) is expected


def test_channels_last_gives_the_same() -> None:
    engine, images_BCHW = full_engine("resnet18"), random_batch(3)
    expected = engine(images_BCHW)
    engine.subject.model.to(memory_format=torch.channels_last)
    layouts: list[bool] = []
    engine.subject.model.layer3.register_forward_hook(
        lambda _m, _i, out: layouts.append(out.is_contiguous(memory_format=torch.channels_last))
    )
    assert_alike(replace(engine, channels_last=True)(images_BCHW), expected)
    assert layouts == [True]


def test_parts_without_taps_are_compiled_and_give_the_same() -> None:
    """Compiled for real: it needs a C++ compiler, as a user's machine does."""
    engine, images_BCHW = full_engine(), random_batch(3)
    taps = Taps.union(kind.calibration_taps for kind in engine.artifacts.values())
    forward_pass = engine.forward(images_BCHW, taps)
    bound = {name: kind.calibrate(forward_pass) for name, kind in engine.artifacts.items()}
    route = bound["gradcam"].options.route
    assert route == "class_token", "it calls parts of the model by itself"
    engine = replace(engine, artifacts=bound)
    expected = engine(images_BCHW)
    compiled = replace(engine, fixed_batch=4)
    parts = compile_parts(engine.subject.model, compiled.taps)
    assert parts == ["patch_embed", *(f"blocks.{index}" for index in range(5)), "blocks.5.mlp"]
    assert_alike(compiled(images_BCHW), expected)
    assert not any(module._forward_hooks for module in engine.subject.model.modules())
