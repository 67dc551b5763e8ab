import json
import math

import pytest
import torch
from sklearn.linear_model import LinearRegression as LeastSquares

from zoo.data.download import DataError
from zoo.data.sequences.series import Series
from zoo.data.sequences.sunspots import Sunspots
from zoo.tasks.prediction import Values

DAYS = [f"2024-01-{day:02}" for day in range(1, 32)] + [f"2024-02-{day:02}" for day in range(1, 10)]


def series(count=40):
    """Times, and three columns of whole numbers."""
    return [
        (day, str(3 * i + 2), str((i * i) % 17), str(round(10 * math.sin(i))))
        for i, day in enumerate(DAYS[:count])
    ]


def written(path, rows, header="day,load,wind,heat"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows), ""]), "utf-8")
    return str(path)


@pytest.fixture
def table(tmp_path):
    return written(tmp_path / "load.csv", series())


def made(path, *, seed=0, **arguments):
    module = Series(path, **{"time": "day", "context": 4, "horizon": 3, **arguments})
    module.setup(seed=seed)
    return module


def everything(module, split):
    return tuple(torch.cat(part) for part in zip(*module.batches(split, 0), strict=True))


def by_hand(rows, column, first, last):
    """A column of the rows from first to last, standardised by the 28 rows of training."""
    values = torch.tensor([float(row[column]) for row in rows], dtype=torch.float64)
    train = values[:28]
    return ((values - train.mean()) / train.std(correction=0))[first:last].float()


@pytest.mark.parametrize("batch_size", [5, None])
def test_windows_are_slices_of_the_rows_and_no_target_is_in_two_splits(table, batch_size):
    module = made(table, targets=("heat",), batch_size=batch_size)
    # 28, 6 and 6 rows; a window begins four rows before its first target.
    starts = {"train": range(4, 26), "val": range(28, 32), "test": range(34, 38)}
    for split, expected in starts.items():
        inputs, targets = everything(module, split)
        assert inputs.shape == (len(expected), 4, 3) and targets.shape == (len(expected), 3)
        order = sorted(range(len(expected)), key=lambda i: inputs[i, 0, 1])  # load rises
        for i, start in zip(order, expected, strict=True):
            given = [by_hand(series(), column, start - 4, start) for column in (3, 1, 2)]
            assert torch.equal(inputs[i], torch.stack(given, 1))
            assert torch.equal(targets[i], by_hand(series(), 3, start, start + 3))


def test_several_targets_have_a_dimension_of_their_own(table):
    module = made(table, columns=("load", "heat", "wind"), targets=("wind", "load"))
    inputs, targets = everything(module, "val")
    assert inputs.shape == (4, 4, 3) and targets.shape == (4, 3, 2)
    for place, column in enumerate((2, 1, 3)):
        assert torch.equal(inputs[0, :, place], by_hand(series(), column, 24, 28))
    assert torch.equal(targets[0, :, 1], by_hand(series(), 1, 28, 31))
    assert module.facts() == {"in_features": 3, "out_features": 6}


def test_vectors_are_the_windows_laid_out(table):
    windows, vectors = (made(table, flatten=flatten) for flatten in (False, True))
    for split in windows.splits:
        (inputs, targets), (flat, same) = (everything(m, split) for m in (windows, vectors))
        assert torch.equal(inputs.flatten(1), flat) and torch.equal(targets, same)
    assert vectors.facts() == {"in_features": 12, "out_features": 9}


def test_a_window_costs_no_memory_of_its_own(table):
    module = made(table, batch_size=None)
    ((inputs, targets),) = module.batches("val", 0)
    for tensor in (inputs, targets):
        assert tensor.untyped_storage().nbytes() == 40 * 3 * 4  # the series in float32


@pytest.mark.parametrize("first", [28, 34])
def test_later_rows_change_nothing_of_an_earlier_split(table, tmp_path, first):
    rows = [*series()[:first], *((row[0], "999", "999", "999") for row in series()[first:])]
    before, after = made(table), made(written(tmp_path / "other.csv", rows))
    assert before.artifacts() == after.artifacts()
    changed = {28: ("val", "test"), 34: ("test",)}[first]
    for split in before.splits:
        pairs = list(zip(everything(before, split), everything(after, split), strict=True))
        assert all(torch.equal(*pair) for pair in pairs) == (split not in changed)
    given = [everything(module, changed[0])[0][0] for module in (before, after)]
    assert torch.equal(*given)  # the past of the first window is what training has seen


def test_order_depends_on_the_seed_and_nothing_else(table):
    first, same, other = (everything(made(table, seed=s), "train")[0] for s in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(first.sort(0).values, other.sort(0).values)


def test_without_a_share_there_is_no_test(table):
    module = made(table, test_fraction=0.0, val_fraction=0.25)
    assert module.splits == tuple(module.loaders) == ("train", "val")
    assert len(everything(module, "val")[0]) == 8


def test_a_module_built_again_from_what_it_found_needs_no_data(table, tmp_path):
    module = made(table, targets=("wind",))
    assert module.resolved() == {"columns": ["wind", "load", "heat"]}
    for name, text in module.artifacts().items():
        (tmp_path / name).write_text(text)
    arguments = {"time": "day", "context": 4, "horizon": 3, "targets": ("wind",)}
    again = Series("gone.csv", **arguments, **module.resolved())
    again.load_artifacts(tmp_path)
    assert again.artifacts() == module.artifacts()
    written(tmp_path / "new.csv", series()[20:26])
    window, names = again.read_inputs(tmp_path / "new.csv")
    assert torch.equal(window[0, :, 0], by_hand(series(), 2, 22, 26))
    assert names == [{"step": "1"}, {"step": "2"}, {"step": "3"}]
    again.path = module.path
    again.setup()  # keeps the scale
    assert torch.equal(everything(again, "val")[0], everything(module, "val")[0])


def test_forecasts_come_back_in_the_units_of_the_columns(table):
    module = made(table, columns=("load", "wind"))
    _, targets = everything(module, "test")
    found = module.in_units(Values(targets[:1].flatten(1), low=targets[:1] - 1))
    expected = torch.tensor([[float(x) for x in row[1:3]] for row in series()[34:37]])
    torch.testing.assert_close(found.values.float(), expected, atol=1e-4, rtol=1e-5)
    std = json.loads(module.artifacts()["scale.json"])["wind"]["std"]
    torch.testing.assert_close((found.values - found.low)[:, 1], torch.full((3,), std).double())
    assert found.high is None and module.value_names == ("load", "wind")


def test_a_column_that_never_changes_is_zero(tmp_path):
    rows = [(*row[:2], "5", row[3]) for row in series()]
    inputs, _ = everything(made(written(tmp_path / "flat.csv", rows)), "train")
    assert inputs[..., 1].eq(0).all() and inputs.isfinite().all()


def test_naive_forecasts_repeat_the_last_value_and_the_last_season(table):
    for flatten in (False, True):
        module = made(table, context=5, horizon=4, period=3, flatten=flatten, targets=("wind",))
        inputs, targets = everything(module, "test")
        found = module.naive_forecasts(inputs)
        past = by_hand(series(), 2, 29, 34)  # rows 29 to 33; row 34 is the first target
        assert torch.equal(targets[0], by_hand(series(), 2, 34, 38))
        assert torch.equal(found["naive"][0], past[[4, 4, 4, 4]])
        assert torch.equal(found["seasonal_naive"][0], past[[2, 3, 4, 2]])
        assert found["naive"].shape == targets.shape
    module = made(table)  # three targets and no period
    (found,) = module.naive_forecasts(everything(module, "val")[0]).values()
    assert found.shape == (4, 3, 3)


def test_sunspots_are_those_of_statsmodels_and_one_cycle_is_forecast_by_the_last():
    module = Sunspots(context=11, horizon=11, batch_size=None)
    module.setup()
    mean, std = module.scale["sunspots"]
    ((inputs, targets),) = module.batches("test", 0)
    last = targets[-1] * std + mean  # 1998 to 2008, by hand from the file
    known = [64.3, 93.3, 119.6, 111.0, 104.0, 63.7, 40.4, 29.8, 15.2, 7.5, 2.9]
    torch.testing.assert_close(last, torch.tensor(known), atol=1e-3, rtol=0)
    repeated = module.naive_forecasts(inputs)["seasonal_naive"][-1] * std + mean  # 1987 to 1997
    before = [29.4, 100.2, 157.6, 142.6, 145.7, 94.3, 54.6, 29.9, 17.5, 8.6, 21.5]
    torch.testing.assert_close(repeated, torch.tensor(before), atol=1e-3, rtol=0)
    assert module.resolved() == {} and module.notes[0].startswith(
        "series of sunspots.csv: 309 rows from 1700 to 2008, windows: "
    )


@pytest.mark.parametrize(
    "times",
    [
        [f"{1990 + i // 12}-{i % 12 + 1:02}" for i in range(40)],
        [f"{1990 + i // 12}-{i % 12 + 1:02}-01T12:00:00+02:00" for i in range(40)],
        [f"2024-01-{i // 24 + 1:02} {i % 24:02}:00" for i in range(40)],
        [str(1960 + i) for i in range(40)],
        [str(0.25 * i - 3) for i in range(40)],
    ],
)
def test_months_hours_years_and_numbers_are_even_steps(tmp_path, times):
    rows = [(time, *row[1:]) for time, row in zip(times, series(), strict=True)]
    module = made(written(tmp_path / "load.csv", rows))
    assert (
        f"40 rows from {times[0]} to {times[-1]}, windows: 22 train, 4 val, 4 test"
        in module.notes[0]
    )


def edited(number, **fields):
    rows = [list(row) for row in series()]
    for place, name in enumerate(("day", "load", "wind", "heat")):
        rows[number][place] = fields.get(name, rows[number][place])
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (edited(7, wind="calm"), r"line 9: the column 'wind' has 'calm'.*write one, or name"),
        (edited(7, wind=""), r"line 9: the column 'wind' has ''.*not a finite number: write one"),
        (edited(7, wind="nan"), r"line 9: the column 'wind' has 'nan'"),
        (edited(7, day="2024-01-07"), r"line 9: the time '2024-01-07' is there already, in line 8"),
        (
            edited(7, day="2024-01-03"),
            r"line 9: .* is before '2024-01-07' of line 8: sort the rows",
        ),
        (edited(7, day="soon"), r"line 9: the time 'soon' is neither a number nor a date"),
        (edited(7, day="inf"), r"line 9: the time 'inf' is neither"),
        (series()[:9] + series()[10:], r"line 11: from '2024-01-09' to '2024-01-11' it is 2 times"),
        (edited(7, day="2024-01-07 01:00"), r"line 9: .* is 0.0417 times the usual step: add or"),
        (
            series(12),
            r"load.csv holds 12 rows, and windows of 4 and the 3 that follow need 19",
        ),
        ([], r"load.csv holds no row below its header"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_line_and_fix(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        made(written(tmp_path / "load.csv", rows))


def test_the_rows_that_are_said_to_be_needed_are_enough(tmp_path):
    for count in (18, 19):
        path = written(tmp_path / f"{count}.csv", series(count))
        if count == 19:
            assert made(path).num_batches("test") == 1
        else:
            with pytest.raises(DataError, match="need 19 "):
                made(path)


def test_columns_of_text_are_left_out_and_named_unless_they_are_asked_for(tmp_path):
    path = written(tmp_path / "load.csv", [(*row, "north") for row in series()], "day,a,b,c,place")
    module = made(path, targets=("b",))
    assert module.columns == ("b", "a", "c")
    assert module.notes[0].endswith("forecast: b; also given: a, c; without numbers: place")
    for arguments, message in (
        ({"columns": ("a", "place")}, "line 2: the column 'place' has 'north'"),
        ({"columns": ("a", "d")}, "line 1: there must be one column 'd', not 0; the columns are"),
        ({"targets": ("place",)}, "no column of numbers 'place' .* there are 'a', 'b', 'c'"),
        ({"time": "hour"}, "there must be one column 'hour'"),
    ):
        with pytest.raises(DataError, match=message):
            made(path, **arguments)


def test_a_file_to_predict_from_must_fill_a_window(table, tmp_path):
    module = made(table)
    for rows, header, message in (
        (series()[:3], "day,load,wind,heat", "holds 3 rows, and a forecast needs the last 4"),
        ([row[:3] for row in series()], "day,load,wind", "one column 'heat', not 0"),
        ([*series()[:5], *series()[6:]], "day,load,wind,heat", "line 7: from .* 2 times the usual"),
    ):
        with pytest.raises(DataError, match=rf"new.csv.*{message}"):
            written(tmp_path / "new.csv", rows, header)
            module.read_inputs(tmp_path / "new.csv")


def test_a_scale_that_is_damaged_or_missing_is_named(table, tmp_path):
    module = Series(table, time="day", columns=("load",))
    with pytest.raises(DataError, match=r"the run folder has no scale\.json"):
        module.read_inputs(tmp_path / "load.csv")
    (tmp_path / "scale.json").write_text('{"load": 3}')
    with pytest.raises(ValueError, match=r"scale.json cannot be read .* restore it"):
        module.load_artifacts(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"context": 0}, "context must be at least 1, not 0"),
        ({"horizon": 0}, "horizon must be at least 1, not 0"),
        ({"period": 5, "context": 4}, "period must be from 1 to the context 4, not 5"),
        ({"columns": ("a", "a")}, r"columns must be different names, not \['a', 'a'\]"),
        ({"targets": ()}, r"targets must be different names, not \[\]"),
        ({"columns": ("a",), "targets": ("b",)}, "targets must be among the columns, not 'b'"),
        ({"columns": ("a",), "time": "a"}, "time must be no column that is given .* not 'a'"),
        ({"val_fraction": 0.0}, "val_fraction must be between 0 and 1"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Series("x.csv", **arguments)


def test_what_least_squares_reaches_on_the_windows_is_a_linear_recurrence(tmp_path):
    """A wave without noise is an exact combination of its two last values."""
    waves = [f"{math.sin(0.7 * i):.9f}" for i in range(60)]
    path = written(tmp_path / "wave.csv", [(w,) for w in waves], "wave")
    module = made(path, time=None, context=2, horizon=1, flatten=True, batch_size=None)
    ((x, y),) = module.batches("train", 0)
    fit = LeastSquares().fit(x.numpy(), y.numpy())
    assert fit.coef_[0] == pytest.approx([-1, 2 * math.cos(0.7)], abs=1e-4)
    ((x, y),) = module.batches("test", 0)
    assert fit.predict(x.numpy()) == pytest.approx(y.numpy(), abs=1e-4)
