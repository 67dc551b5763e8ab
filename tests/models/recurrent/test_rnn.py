import torch

from zoo.models.recurrent.rnn import RNN


def test_gradient_of_a_linear_network_k_steps_back_is_the_kth_power_of_its_matrix():
    torch.manual_seed(0)
    layer = RNN(3, 4, nonlinearity="relu", backend="written").double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()  # ReLU of nothing but positive numbers does nothing
    x, h = torch.rand(1, 6, 3, dtype=torch.double), torch.rand(1, 1, 4, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda h: layer(x, h)[1].flatten(), h)
    power = torch.linalg.matrix_power(layer.weight_hh_l0.detach(), 6)
    torch.testing.assert_close(jacobian.view(4, 4), power)
