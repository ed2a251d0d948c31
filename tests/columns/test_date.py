from datetime import datetime, timezone

import numpy as np

from stages.columns import Date

HOURLY = np.arange(18262, 18262 + 800, 1 / 24)  # from 2020-01-01 on


def test_the_first_column_counts_the_days_since_the_first_training_row() -> None:
    column = Date.fit("sold", np.array([10.0, 14.0, 12.0]), "year-month-day")
    assert column.labels() == ["sold"]
    assert column.encode(np.array([9.0, 14.0, np.nan])).tolist() == [[-1], [4], [2]]


def test_the_phase_of_a_year_a_week_and_a_day_is_on_a_circle_where_the_training_rows_vary_in_it() -> None:
    column = Date.fit("sold", HOURLY, "year-month-day")
    assert column.periods == ["year", "week", "day"]
    x = column.encode(HOURLY[:48])
    assert x.shape == (48, 7)
    for sine, cosine in ((1, 2), (3, 4), (5, 6)):
        assert np.allclose(np.hypot(x[:, sine], x[:, cosine]), 1)
    assert np.allclose(x[:24, 5:], x[24:, 5:], atol=1e-5)  # one day later it is the same hour


def test_a_period_that_does_not_vary_is_left_out() -> None:
    sundays = np.arange(18262.0, 18262 + 3000, 7)
    assert Date.fit("sold", sundays, "year-month-day").periods == ["year"]
    new_years_days = np.array([np.datetime64(f"{year}-01-01").astype(float) for year in range(1990, 2020)])
    assert Date.fit("sold", new_years_days, "year-month-day").periods == ["week"]
    assert Date.fit("sold", np.arange(18262.0, 18262 + 300), "year-month-day").periods == ["week"]


def test_a_missing_date_is_the_median_and_marked() -> None:
    column = Date.fit("sold", np.array([10.0, np.nan, 12.0, 15.0]), "year-month-day")
    assert column.encode(np.array([np.nan])).tolist() == [[2, 1]]
    assert column.decode(column.encode(np.array([np.nan, 12.0]))) == ["", "1970-01-13"]


def test_dates_are_decoded_as_pythons_datetime_has_them_to_the_minute() -> None:
    column = Date.fit("sold", HOURLY, "year-month-day")
    expected = [datetime.fromtimestamp(round(day * 86400), timezone.utc).strftime("%Y-%m-%dT%H:%M") for day in HOURLY]
    assert column.decode(column.encode(HOURLY)) == expected
