"""The image networks are the ones of torchdiffeq's MNIST example, written here in plain torch as the truth."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralode_exp.models.images import ConvField, Stem, image_model
from neuralode_exp.ode import make_method

NAMES = ["mlp", "stem", "resnet", "rknet", "odenet"]
ONE_STEP = make_method("rk4", step_size=1.0)
# Float64 round-off after a dozen layers.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def perturbed(module):
    """In float64, with norms and biases away from their start at 0 and 1, which would hide a forgotten one."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def images(batch=3, dtype=torch.float64):
    return torch.rand(batch, 1, 28, 28, dtype=dtype)


def gradients(model, x):
    loss = model(x).square().sum()
    return torch.autograd.grad(loss, list(model.parameters()))


class ConcatConv2d(nn.Module):
    """torchdiffeq's: time as a first channel of the input."""

    def __init__(self, conv):
        super().__init__()
        self.layer = nn.Conv2d(conv.weight.shape[0] + 1, conv.weight.shape[0], 3, 1, 1).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.cat([conv.time_weight, conv.weight], dim=1))
            self.layer.bias.copy_(conv.bias)

    def forward(self, t, z):
        return self.layer(torch.cat([torch.ones_like(z[:, :1]) * t, z], dim=1))


def concat_field(field):
    """torchdiffeq's `ODEfunc` with the weights of a `ConvField`."""
    conv1, conv2 = ConcatConv2d(field.conv1), ConcatConv2d(field.conv2)

    def f(t, z):
        z = conv1(t, F.relu(field.norm1(z)))
        z = conv2(t, F.relu(field.norm2(z)))
        return field.norm3(z)

    return f


@pytest.mark.parametrize(
    ("name", "count"),
    [("mlp", 238_510), ("stem", 132_874), ("resnet", 576_778), ("rknet", 208_266), ("odenet", 208_266)],
)
def test_parameter_counts(name, count):
    model = image_model(name, method=ONE_STEP)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    # 64 channels: a bias before the norm of a group of one channel changes nothing.
    model = perturbed(image_model(name, method=ONE_STEP, channels=64))
    assert model(images()).shape == (3, 10)
    assert all(g.abs().max() > 0 for g in gradients(model, images()))


def test_field_is_the_concatenated_time_channel():
    torch.manual_seed(0)
    field = perturbed(ConvField(64))
    z, t = torch.randn(2, 64, 6, 6, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)
    torch.testing.assert_close(field(t, z), concat_field(field)(t, z), **TOLERANCE)


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_field_gradients(check):
    torch.manual_seed(0)
    field = perturbed(ConvField(3))
    z = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    parameters = dict(field.named_parameters())
    assert check(
        lambda t, z, *p: torch.func.functional_call(field, dict(zip(parameters, p, strict=True)), (t, z)),
        (t, z, *parameters.values()),
    )


def test_time_conv_starts_like_a_convolution_of_one_more_channel():
    torch.manual_seed(0)
    conv, reference = ConvField(64).conv1, nn.Conv2d(65, 64, 3)
    bound = 1 / math.sqrt(65 * 9)
    for parameter in (*conv.parameters(), *reference.parameters()):
        # Uniform on [-bound, bound]: the largest of n draws misses the bound by bound / n on average.
        assert bound * (1 - 20 / parameter.numel()) <= parameter.abs().max() <= bound
    assert conv.weight.std().item() == pytest.approx(reference.weight.std().item(), rel=0.02)  # 37,000 draws


def test_stem_is_three_convolutions():
    torch.manual_seed(0)
    stem, x = perturbed(Stem((1, 28, 28), 64)), images()
    z = F.relu(stem.norm1(stem.conv1(x)))
    z = F.relu(stem.norm2(stem.conv2(z)))
    expected = stem.conv3(z)
    assert expected.shape == (3, 64, 6, 6)
    torch.testing.assert_close(stem(x), expected, **TOLERANCE)


def test_resnet_is_preactivation_blocks():
    torch.manual_seed(0)
    model, x = perturbed(image_model("resnet", channels=64, blocks=2)), images()
    z = model.features(x)
    for block in model.body.blocks:
        dz = block.conv1(F.relu(block.norm1(z)))
        z = z + block.conv2(F.relu(block.norm2(dz)))
    expected = model.classifier["linear"](F.relu(model.classifier["norm"](z)).mean((2, 3)))
    torch.testing.assert_close(model(x), expected, **TOLERANCE)


def test_odenet_is_one_step_of_rk4():
    torch.manual_seed(0)
    model, x = perturbed(image_model("odenet", method=ONE_STEP)), images()
    z, f = model.features(x), concat_field(model.body.ode.field)
    # The 3/8 rule: Hairer, Norsett & Wanner, Solving ODEs I, 2nd ed., Table II.1.2.
    k1 = f(0, z)
    k2 = f(1 / 3, z + k1 / 3)
    k3 = f(2 / 3, z - k1 / 3 + k2)
    k4 = f(1, z + k1 - k2 + k3)
    z1 = z + (k1 + 3 * k2 + 3 * k3 + k4) / 8
    torch.testing.assert_close(model.body(z), z1, **TOLERANCE)
    pooled = F.relu(model.classifier["norm"](z1)).mean((2, 3))
    torch.testing.assert_close(model(x), model.classifier["linear"](pooled), **TOLERANCE)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("name", ["resnet", "rknet", "odenet"])
def test_channels_last_and_the_device_change_nothing(name, device):
    torch.manual_seed(0)
    gradient = "checkpoint" if name == "odenet" else None
    model, x = perturbed(image_model(name, method=ONE_STEP, gradient=gradient, channels=8)), images()
    expected = [model(x), *gradients(model, x)]
    model = model.to(device, memory_format=torch.channels_last)
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    for a, b in zip([model(x), *gradients(model, x)], expected, strict=True):
        torch.testing.assert_close(a.cpu(), b, **TOLERANCE)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_states_keep_their_memory_format_through_a_solve(memory_format):
    method = make_method("dopri5", rtol=1e-3, atol=1e-3)
    model, seen = image_model("odenet", method=method, gradient="checkpoint", channels=8), []
    model = model.to(memory_format=memory_format)
    field = model.body.ode.field
    field.register_forward_pre_hook(lambda _, args: seen.append(args[1].is_contiguous(memory_format=memory_format)))
    field.register_forward_hook(lambda _, args, dz: seen.append(dz.is_contiguous(memory_format=memory_format)))
    model(images(2, torch.float32).contiguous(memory_format=memory_format)).sum().backward()
    assert model.stats.nfe_backward > 0
    assert len(seen) >= 2 * (model.stats.nfe_forward + model.stats.nfe_backward)
    assert all(seen)


def test_checkpoint_is_backprop():
    torch.manual_seed(0)
    method = make_method("dopri5", rtol=1e-3, atol=1e-3)
    model, x = perturbed(image_model("rknet", method=method, channels=64)), images(2)
    exact = gradients(model, x)
    model.body.ode.gradient = "checkpoint"
    for a, b in zip(gradients(model, x), exact, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)


def test_adjoint_approaches_backprop():
    def error(tolerance):
        torch.manual_seed(0)
        method = make_method("dopri5", rtol=tolerance, atol=tolerance)
        model, x = perturbed(image_model("rknet", method=method, channels=4)), images(2)
        exact = torch.cat([g.flatten() for g in gradients(model, x)])
        model.body.ode.gradient = "adjoint"
        adjoint = torch.cat([g.flatten() for g in gradients(model, x)])
        return (adjoint - exact).norm() / exact.norm()

    # Slowly, as in torchdiffeq: each of the ReLUs that switch during the solve is a jump in the adjoint's equation.
    errors = [error(1e-3), error(1e-5)]
    assert errors[1] < min(0.03, errors[0] / 4)  # 0.154 and 0.019


def test_torchdiffeq_engine_gives_the_same_network():
    torch.manual_seed(0)
    model, x = perturbed(image_model("odenet", method=ONE_STEP, channels=4)), images(2)
    expected = model(x)
    model.body.ode.method = make_method("rk4", step_size=1.0, engine="torchdiffeq")
    torch.testing.assert_close(model(x), expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "gradient", "forward", "backward"),
    [
        ("mlp", None, 0, 0),
        ("stem", None, 0, 0),
        ("resnet", None, 6, 6),
        ("rknet", None, 8, 0),
        ("odenet", "checkpoint", 8, 4),
        ("odenet", None, 8, 8),
    ],
)
def test_stats(name, gradient, forward, backward):
    model = image_model(name, method=make_method("rk4", step_size=0.5), gradient=gradient, channels=4)
    model(images(2, torch.float32)).sum().backward()
    assert (model.stats.nfe_forward, model.stats.nfe_backward) == (forward, backward)


def test_weights_move_between_gradients_and_methods():
    rknet = image_model("rknet", method=ONE_STEP, channels=4)
    odenet = image_model("odenet", method=make_method("dopri5", rtol=1e-5, atol=1e-5), channels=4)
    assert (rknet.body.ode.gradient, odenet.body.ode.gradient) == ("backprop", "adjoint")
    odenet.load_state_dict(rknet.state_dict(), strict=True)
    odenet.body.ode.method = ONE_STEP
    x = images(dtype=torch.float32)
    assert torch.equal(odenet(x), rknet(x))
    assert odenet.stats.nfe_forward == 4


def test_float64_is_not_rounded_on_the_way():
    torch.manual_seed(0)
    model, x = perturbed(image_model("odenet", method=ONE_STEP, channels=4)), images()
    assert model(x).dtype == torch.float64
    single = image_model("odenet", method=ONE_STEP, channels=4)
    single.load_state_dict(model.state_dict())
    single.double().load_state_dict(model.state_dict())
    assert torch.equal(single(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnets"}, "`name` must be one of mlp, stem, resnet, rknet, odenet, got 'resnets'"),
        ({"name": "odenet"}, "odenet solves an ODE and needs `method`, got None"),
        ({"name": "stem", "channels": 48}, "at most 32 or a multiple of 32, got 48"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        image_model(**arguments)


@pytest.mark.parametrize("name", ["mlp", "stem"])
@pytest.mark.parametrize("x", [torch.rand(2, 28, 28), torch.rand(2, 1, 32, 32), torch.zeros(2, 1, 28, 28).byte()])
def test_wrong_images(name, x):
    with pytest.raises(ValueError, match=r"images must be floats of shape \(B, 1, 28, 28\)"):
        image_model(name, channels=4)(x)


SIZES = [((1, 8, 8), (4, 4)), ((3, 32, 32), (7, 7)), ((2, 20, 11), (8, 3)), ((1, 5, 5), (1, 1))]


@pytest.mark.parametrize(("image", "features"), SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_any_image(name, image, features):
    torch.manual_seed(0)
    model = perturbed(image_model(name, image, 7, method=ONE_STEP))
    x = torch.rand(3, *image, dtype=torch.float64)
    assert model(x).shape == (3, 7)
    if name != "mlp":
        assert model.features(x).shape == (3, 64, *features)
    assert all(g.isfinite().all() for g in gradients(model, x))


@pytest.mark.parametrize("name", ["stem", "resnet", "rknet"])
def test_double_backward(name):
    torch.manual_seed(0)
    model = perturbed(image_model(name, (1, 8, 8), 3, method=ONE_STEP, channels=4, blocks=1))
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)

    def slope(x):
        (adj,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        return adj

    direction, h = torch.randn_like(x), 1e-6
    (second,) = torch.autograd.grad((slope(x) * direction).sum(), x)
    central = (slope(x + h * direction) - slope(x - h * direction)).detach() / (2 * h)
    torch.testing.assert_close(second, central, rtol=1e-5, atol=1e-6)  # h^2 and round-off over h


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_autocast(name, gradient):
    torch.manual_seed(0)
    gradient = "backprop" if name == "rknet" else gradient
    model, x = image_model(name, method=ONE_STEP, gradient=gradient), images(8, torch.float32)
    exact = model(x)
    expected = torch.autograd.grad(F.cross_entropy(exact, torch.arange(8)), list(model.parameters()))
    states = []
    if name in ("rknet", "odenet"):
        model.body.register_forward_hook(lambda _, args, z: states.append(z.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert set(states) <= {torch.float32}
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), exact, rtol=0.05, atol=0.05)  # bfloat16 has 8 bits
    found = torch.autograd.grad(F.cross_entropy(logits.float(), torch.arange(8)), list(model.parameters()))
    assert all(g.dtype == torch.float32 for g in found)
    a, b = (torch.cat([g.flatten() for g in gradient]) for gradient in (found, expected))
    assert F.cosine_similarity(a, b, dim=0) > 0.95  # sums over positions cancel, and ReLUs switch


@pytest.mark.parametrize("name", ["mlp", "stem", "resnet"])
def test_compiles_without_a_break(name):
    torch.manual_seed(0)
    model, x = image_model(name, channels=4), images(2, torch.float32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


def test_the_field_of_a_solve_compiles_without_a_break():
    torch.manual_seed(0)
    model, x = image_model("odenet", method=ONE_STEP, gradient="checkpoint", channels=4), images(2, torch.float32)
    expected = gradients(model, x)
    model.body.ode.field.compile(fullgraph=True, backend="aot_eager")
    for a, b in zip(gradients(model, x), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
