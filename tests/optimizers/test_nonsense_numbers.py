"""Numbers of a name that no run can have are one line, not a traceback or a silent rounding."""

import pytest

from bayesfilt.optimizers import Setting, named_optimizer


def setting(schedule="constant"):
    return Setting(1e-3, 0.1, batch_size=4, num_steps=20, schedule=schedule)


@pytest.mark.parametrize("numbers", ["T_0=1e30", "T_0=5e9", "T_mult=1e300"])
@pytest.mark.parametrize("name", ["warm_restarts", "normalised_decay"])
def test_periods_longer_than_any_run_are_refused(name, numbers):
    with pytest.raises(ValueError, match="periods that end within"):
        setting(f"{name}:{numbers}")


@pytest.mark.parametrize("axis", ["0.5", "nan", "inf"])
def test_an_axis_that_is_not_whole_is_refused(axis):
    with pytest.raises(ValueError, match="whole output_axis"):
        named_optimizer(f"normalized:output_axis={axis}", setting())


@pytest.mark.parametrize("number", ["patience", "window", "cooldown"])
def test_a_plateau_longer_than_any_run_is_refused(number):
    with pytest.raises(ValueError, match=f"needs {number} <"):
        setting(f"reduce_on_plateau:{number}=1e30")
