"""The convolution and the group norm of space-first states are torch's own, in value and in gradient."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neuralode_exp.models.frequency_conv import convolve, spectrum, to_images, to_space_first
from neuralode_exp.models.group_norm import group_norm

# Float64 round-off of sums of a few hundred terms of order one.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


def randn(*shape, requires_grad=False):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_(requires_grad)


def test_layout_there_and_back():
    z = randn(2, 3, 5, 5)
    assert to_space_first(z).shape == (25, 3, 2)
    assert to_space_first(z).is_contiguous()
    assert torch.equal(to_images(to_space_first(z)), z)


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])  # the torus has n + 1 points a side: both parities
@pytest.mark.parametrize("channels", [(4, 4), (3, 5)])
def test_convolve_is_conv2d(n, channels):
    torch.manual_seed(0)
    n_in, n_out = channels
    x, weight = randn(2, n_in, n, n, requires_grad=True), randn(n_out, n_in, 3, 3, requires_grad=True)
    expected = F.conv2d(x, weight, padding=1)
    got = to_images(convolve(to_space_first(x), spectrum(weight, n)))
    torch.testing.assert_close(got, expected, **TOLERANCE)
    cotangent = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(got, (x, weight), cotangent),
        torch.autograd.grad(expected, (x, weight), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b, **TOLERANCE)


def test_convolve_in_float32_is_as_accurate_as_conv2d():
    torch.manual_seed(0)
    x, weight = randn(16, 64, 6, 6), randn(64, 64, 3, 3)
    truth = F.conv2d(x, weight, padding=1)
    direct = F.conv2d(x.float(), weight.float(), padding=1)
    ours = to_images(convolve(to_space_first(x.float()), spectrum(weight.float(), 6)))
    # Twice, because which of two roundings is nearer depends on the machine's conv2d.
    assert (ours - truth).square().mean() <= 2 * (direct - truth).square().mean()


def test_spectrum_first_made_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        convolve(randn(64, 2, 1), spectrum(randn(2, 2, 3, 3), 8))
    x = randn(64, 2, 1, requires_grad=True)
    convolve(x, spectrum(randn(2, 2, 3, 3), 8)).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("groups", "channels"), [(4, 8), (8, 8), (1, 6)])
def test_group_norm_is_torchs(groups, channels):
    torch.manual_seed(0)
    norm = nn.GroupNorm(groups, channels).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    z = randn(3, channels, 4, 4, requires_grad=True)
    expected = norm(z)
    got = to_images(group_norm(to_space_first(z), norm))
    torch.testing.assert_close(got, expected, **TOLERANCE)
    inputs, cotangent = (z, norm.weight, norm.bias), torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(got, inputs, cotangent), torch.autograd.grad(expected, inputs, cotangent), strict=True
    ):
        torch.testing.assert_close(a, b, **TOLERANCE)


def test_group_norm_keeps_its_digits_beside_a_large_mean():
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 8)
    z = torch.randn(3, 8, 4, 4) + 100
    truth = nn.GroupNorm(4, 8).double()(z.double())
    # Rounding z itself costs 100 * 6e-8; the squared form would lose 100 times that.
    torch.testing.assert_close(to_images(group_norm(to_space_first(z), norm)).double(), truth, rtol=0, atol=5e-5)
