import pytest
import torch

from stages import network


def test_both_styles_are_the_same_function() -> None:
    module, sequential = (
        network.build(network.Network(style="module", hidden=7), 3, 2, seed=0),
        network.build(network.Network(style="sequential", hidden=7), 3, 2, seed=0),
    )
    sequential.load_state_dict(module.state_dict())
    x = torch.randn(20, 3)
    assert torch.equal(module(x), sequential(x))


def test_the_network_is_two_layers_with_a_relu_between() -> None:
    net = network.build(network.Network(style="module", hidden=7), 3, 2, seed=0).double()
    x, values = torch.randn(20, 3, dtype=torch.float64), dict(net.named_parameters())
    hidden = (x @ values["hidden.weight"].T + values["hidden.bias"]).clamp(min=0)
    torch.testing.assert_close(net(x), hidden @ values["predict.weight"].T + values["predict.bias"])


@pytest.mark.parametrize("style", ["module", "sequential"])
def test_the_first_weights_are_those_of_torch_after_manual_seed(style: str) -> None:
    torch.manual_seed(5)
    expected = network.STYLES[style](3, 7, 2).state_dict()
    before = torch.get_rng_state()
    net = network.build(network.Network.model_validate({"style": style, "hidden": 7}), 3, 2, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    for name, values in net.state_dict().items():
        assert torch.equal(values, expected[name]), name
