import pytest
import torch

from zoo.layers.noise_schedule import NoiseSchedule, cosine_betas, linear_betas

SCHEDULES = {"linear": linear_betas, "cosine": cosine_betas}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def schedule(kind="linear", num_steps=1000):
    return NoiseSchedule(SCHEDULES[kind](num_steps))


def at(t, count=1):
    return torch.full((count,), t)


def test_shares_of_the_data_are_the_published_ones():
    linear, cosine = schedule("linear").alphas_bar, schedule("cosine").alphas_bar
    assert linear[0] == cosine[0] == 1
    assert linear[1].item() == pytest.approx(1 - 1e-4)
    assert linear[1000].item() == pytest.approx(4.036e-5, rel=1e-3)
    assert cosine[501].item() == pytest.approx(0.4923, abs=5e-5)  # 500, counted from 0
    assert cosine[1000].item() == pytest.approx(2.43e-9, rel=2e-3)


@pytest.mark.parametrize("num_steps", [50, 200, 4000])
def test_fewer_or_more_linear_steps_leave_about_as_little(num_steps):
    left = schedule("linear", num_steps).alphas_bar[-1].log()
    assert left.item() == pytest.approx(schedule().alphas_bar[-1].log().item(), abs=2.5)


@pytest.mark.parametrize("t", [1, 100, 400])
def test_noisy_samples_have_the_moments_of_steps_taken_one_by_one(t):
    betas = linear_betas(1000)
    x = x0 = torch.tensor([[0.7, -1.0]], dtype=torch.double).expand(20_000, 2)
    for beta in betas[:t]:  # equation 2
        x = (1 - beta).sqrt() * x + beta.sqrt() * torch.randn_like(x)
    jump = schedule().diffuse(x0, at(t, len(x0)), torch.randn_like(x0))
    mean, variance = schedule().marginal(x0[:1], at(t))
    for found in (x, jump):
        error = (variance / len(x)).sqrt()  # of a mean
        assert ((found.mean(0) - mean).abs() < 4 * error).all()
        assert ((found.var(0) / variance - 1).abs() < 4 * (2 / len(x)) ** 0.5).all()


@pytest.mark.parametrize(("t", "s"), [(1, 0), (2, 1), (500, 499), (1000, 999), (700, 300)])
def test_posterior_is_bayes_rule(t, s):
    """With x_0 known, x_s and x_t are jointly normal: condition one on the other."""
    x0, x = torch.randn(2, 3, 4, dtype=torch.double)
    found = schedule().posterior(x0, x, at(t, 3), at(s, 3))
    share = schedule().alphas_bar
    alpha = share[t] / share[s]
    gain = alpha.sqrt() * (1 - share[s]) / (1 - share[t])
    mean = share[s].sqrt() * x0 + gain * (x - share[t].sqrt() * x0)
    variance = (1 - share[s]) - gain * alpha.sqrt() * (1 - share[s])
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.variance.flatten(), variance.expand(3))


def test_variance_of_a_step_is_its_beta():
    betas = linear_betas(1000)
    t = torch.arange(1, 1001)
    found = schedule().beta(t, t - 1, torch.zeros(1, 1, dtype=torch.double))
    torch.testing.assert_close(found.flatten(), betas)


@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_predicted_leads_back_to_the_data_and_the_noise(kind, name):
    noising = schedule(name)
    x0, noise = torch.randn(2, 4, 3, 2, 2, dtype=torch.double)
    t = torch.tensor([1, 300, 600, 990])
    x = noising.diffuse(x0, t, noise)
    target = noising.target(kind, x0, noise, t)
    torch.testing.assert_close(noising.data(kind, target, x, t), x0)
    torch.testing.assert_close(noising.noise(x0, x, t), noise)


def test_velocity_is_the_derivative_by_the_angle():
    """With cos(a) of the data and sin(a) of the noise, v is dx/da (Salimans and Ho, appendix D)."""
    x0, noise = torch.randn(2, 1, 5, dtype=torch.double)
    noising, t = schedule("cosine"), at(400)
    angle = noising.alphas_bar[400].sqrt().acos().requires_grad_()
    x = angle.cos() * x0 + angle.sin() * noise
    torch.testing.assert_close(x.detach(), noising.diffuse(x0, t, noise))
    slope = torch.stack([torch.autograd.grad(v, angle, retain_graph=True)[0] for v in x[0]])
    torch.testing.assert_close(noising.target("v", x0, noise, t)[0], slope)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_betas(20), "num_steps must be at least 21 for the linear schedule, not 20"),
        (lambda: cosine_betas(1), "num_steps must be at least 2, not 1"),
        (lambda: NoiseSchedule(torch.tensor([0.1, 1.0])), "a row of numbers between 0 and 1"),
        (lambda: NoiseSchedule(torch.tensor([[0.1]])), "a row of numbers between 0 and 1"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
