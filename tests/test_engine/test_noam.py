import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS


def make(lr=1.0, by_epoch=False, **settings):
    parameter = torch.nn.Parameter(torch.zeros(1))
    model = torch.nn.Module()
    model.p = parameter
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type="Adam", lr=lr)))
    scheduler = PARAM_SCHEDULERS.build(
        dict(type="pcm_plugin.NoamLR", by_epoch=by_epoch, **settings),
        default_args=dict(optimizer=wrapper),
    )
    return wrapper, scheduler


def rates(wrapper, scheduler, steps):
    values = []
    for _ in range(steps):
        values.append(wrapper.param_groups[0]["lr"])
        wrapper.step()
        scheduler.step()
    return values


def test_rates_are_those_of_the_formula():
    wrapper, scheduler = make(embed_dims=512, warmup=10)
    got = rates(wrapper, scheduler, 30)
    want = [512**-0.5 * min(s**-0.5, s * 10**-1.5) for s in range(1, 31)]
    assert got == pytest.approx(want, rel=1e-12)
    assert max(got) == got[9]


def test_released_schedule_peaks_at_its_10000th_step():
    wrapper, scheduler = make()
    scheduler.load_state_dict({"last_step": 9_998, "_global_step": 9_998})
    scheduler.step()
    assert wrapper.param_groups[0]["lr"] == pytest.approx(512**-0.5 * 10_000**-0.5, rel=1e-12)


def test_optimizer_rate_multiplies_the_curve():
    single = rates(*make(embed_dims=64, warmup=5), 8)
    double = rates(*make(lr=2.0, embed_dims=64, warmup=5), 8)
    assert double == pytest.approx([2 * rate for rate in single], rel=1e-12)


def test_the_schedule_is_resumed_from_its_state():
    wrapper, scheduler = make(embed_dims=64, warmup=5)
    whole = rates(wrapper, scheduler, 12)
    first_wrapper, first = make(embed_dims=64, warmup=5)
    head = rates(first_wrapper, first, 7)
    second_wrapper, second = make(embed_dims=64, warmup=5)
    second_wrapper.load_state_dict(first_wrapper.state_dict())
    second.load_state_dict(first.state_dict())
    assert head + rates(second_wrapper, second, 5) == whole


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(by_epoch=True), "`by_epoch` of NoamLR must be False"),
        (dict(warmup=0), "`warmup` of NoamLR must be positive, got 0"),
        (dict(embed_dims=-1), "`embed_dims` of NoamLR must be positive, got -1"),
    ],
)
def test_invalid_settings_are_reported(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
