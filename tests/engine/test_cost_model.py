"""Fake measurements only: no clock."""

import pytest

from lemica_backend.cost_curve import CostCurve
from lemica_backend.cost_model import CostModel, Work


def curve(**seconds):
    made = CostCurve()
    for rows, each in seconds.items():
        made.observe(int(rows[1:]), each)
    return made


def model(seconds_of_rows, *, kind="compute", times=3, margin=0.1):
    made = CostModel(margin)
    for _ in range(times):
        for rows, seconds in seconds_of_rows.items():
            made.observe([Work(kind, rows)], seconds)
    return made


def test_nothing_measured_is_nothing_known():
    assert CostCurve().seconds(2) is None
    assert not CostModel().is_ready
    assert CostModel().left_s({"compute": 5}, 2) == 0


def test_measured_numbers_of_rows_are_what_was_measured():
    made = curve(r2=1.0, r8=3.0)
    assert (made.seconds(2), made.seconds(8)) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, 1.0),  # fewer rows may take as long as the fewest that are known
        (3, 1.5),  # what the smaller number costs a row: the curve may bend
        (7, 3.0),  # but not more than more rows take
        (16, 6.0),  # no row beyond the last is cheaper
    ],
)
def test_unknown_numbers_of_rows_are_guessed_for_the_worse(rows, expected):
    assert curve(r2=1.0, r8=3.0).seconds(rows) == pytest.approx(expected)


def test_beyond_the_last_a_curve_that_gets_steeper_goes_on_so():
    assert curve(r2=1.0, r4=4.0).seconds(6) == pytest.approx(7.0)


def test_one_outlier_moves_the_average_by_a_tenth_at_most():
    made = CostCurve()
    for _ in range(20):
        made.observe(2, 1.0)
    made.observe(2, 1000.0)
    assert made.seconds(2) == pytest.approx(1.1)


def test_a_lasting_change_is_learned():
    made = CostCurve()
    for _ in range(50):
        made.observe(2, 1.0)
    for _ in range(50):
        made.observe(2, 5.0)
    assert made.seconds(2) == pytest.approx(5.0, rel=0.1)


def test_a_first_measurement_that_is_an_outlier_counts_as_twice_the_guess():
    made = curve(r2=1.0)
    made.observe(4, 100.0)
    assert made.seconds(4) == 4.0


def settled(seconds_of_rows, times=30):
    made = CostCurve()
    for _ in range(times):
        for rows, seconds in seconds_of_rows.items():
            made.observe(rows, seconds)
    return made


def test_what_is_not_measured_slows_down_with_what_is():
    made = settled({2: 1.0, 4: 1.9})
    for _ in range(200):
        made.observe(2, 2.0)
    assert made.seconds(2) == pytest.approx(2.0, rel=0.01)
    assert made.seconds(4) / made.seconds(2) == pytest.approx(1.9, rel=0.25)


def test_a_wrong_first_measurement_is_not_taken_for_the_machines():
    made = settled({2: 1.0, 4: 0.9}, times=1)
    for _ in range(5):
        made.observe(4, 2.0)
    assert made.seconds(4) / made.seconds(2) > 1.5


def test_measurements_in_turn_learn_each_number_of_rows():
    made = settled({2: 1.0, 4: 1.9, 8: 3.0})
    for _ in range(200):
        for rows, seconds in ((2, 1.0), (4, 1.2), (8, 5.0)):
            made.observe(rows, seconds)
    assert [made.seconds(rows) for rows in (2, 4, 8)] == pytest.approx([1.0, 1.2, 5.0], rel=0.15)


def test_a_tick_is_the_sum_of_its_kinds():
    made = model({2: 1.0, 4: 1.5})
    made.observe([Work("residual", 2)], 0.1)
    assert made.tick_s([Work("compute", 2), Work("residual", 2), Work("compute", 2)]) == pytest.approx(1.6)


def test_in_a_mixed_tick_the_computed_rows_take_what_is_left():
    made = CostModel()
    made.observe([Work("residual", 2)], 0.2)
    made.observe([Work("compute", 2), Work("residual", 2)], 1.2)
    assert made.seconds(Work("compute", 2)) == pytest.approx(1.0)


def test_what_is_left_of_a_request_are_its_steps_by_kind_and_decoding():
    made = model({2: 1.0})
    made.observe([Work("residual", 2)], 0.1)
    made.observe([Work("decode", 1)], 0.5)
    assert made.left_s({"compute": 3, "residual": 5}, 2) == pytest.approx(4.0)
    assert made.left_s({}, 2) == pytest.approx(0.5)


def test_a_kind_of_skipped_step_never_seen_counts_as_computed():
    assert model({2: 1.0}).left_s({"output": 2}, 2) == pytest.approx(2.0)


@pytest.mark.parametrize(("two", "pays"), [(2.0, False), (1.95, False), (1.85, True), (1.0, True)])
def test_sharing_pays_where_it_saves_more_than_the_margin(two, pays):
    made = model({2: 1.0, 4: two})
    assert made.is_worth_sharing([Work("compute", 2)], Work("compute", 2), gaining=100) is pays
    assert made.slowdowns(2, 8)[1:2] == ((pytest.approx(two),) if pays else ())


@pytest.mark.parametrize(("gaining", "pays"), [(1, False), (2, False), (3, True), (50, True)])
def test_little_is_saved_only_for_many(gaining, pays):
    """Two that share finish at 1.7 and 1.7, one after the other at 1 and 2: those behind them decide."""
    made = model({2: 1.0, 4: 1.7})
    assert made.is_worth_sharing([Work("compute", 2)], Work("compute", 2), gaining=gaining) is pays


def test_rows_of_different_kinds_never_share():
    made = model({2: 1.0, 4: 1.0})
    made.observe([Work("residual", 2)], 0.1)
    assert not made.is_worth_sharing([Work("compute", 2)], Work("residual", 2), gaining=100)


def test_a_number_of_rows_never_tried_is_tried_until_it_is_known():
    made = model({2: 1.0})
    assert made.is_worth_sharing([Work("compute", 2)], Work("compute", 2), gaining=100)
    assert made.slowdowns(2, 8) == (1.0,)  # but nothing is predicted from hope
    for _ in range(2):
        made.observe([Work("compute", 4)], 2.0)
    assert not made.is_worth_sharing([Work("compute", 2)], Work("compute", 2), gaining=100)


@pytest.mark.parametrize(
    ("two", "gaining", "tries"), [(1.7, 1, False), (1.7, 50, True), (1.2, 3, True), (2.0, 50, False)]
)
def test_more_than_two_try_only_where_two_are_known_to_gain(two, gaining, tries):
    made = model({2: 1.0, 4: two})
    assert made.is_worth_sharing([Work("compute", 2)] * 2, Work("compute", 2), gaining=gaining) is tries


def test_slowdowns_end_where_one_more_request_does_not_pay_or_at_the_limit():
    made = model({2: 1.0, 4: 1.2, 6: 1.4, 8: 2.4})
    assert made.slowdowns(2, 8) == pytest.approx((1.0, 1.2, 1.4))
    assert made.slowdowns(2, 2) == pytest.approx((1.0, 1.2))
