"""Dates in text, compared with Python's datetime."""

import random
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from stages.columns.dates import FORMS, days

EPOCH, LAST = datetime(1970, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
WRITTEN = {
    "year-month-day": ["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"],
    "day/month/year": ["%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y %H:%M", "%d. %m. %Y"],
    "month/day/year": ["%m/%d/%Y", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S%p"],
    "day/month/short year": ["%d/%m/%y", "%d.%m.%y %H:%M"],
    "month/day/short year": ["%m/%d/%y"],
    "day month name year": ["%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%d. %B %Y"],
    "month name day year": ["%b %d, %Y", "%B %d %Y"],
    "year-month": ["%Y-%m"],
}


def read(text: str, form: str) -> float:
    return float(days(pa.array([text]), form)[0])


def test_every_form_is_compared() -> None:
    assert WRITTEN.keys() == FORMS.keys()


@pytest.mark.parametrize(("form", "written"), [(form, written) for form in FORMS for written in WRITTEN[form]])
def test_dates_are_those_that_python_reads(form: str, written: str) -> None:
    first, last = (datetime(1969, 1, 1), datetime(2068, 12, 31)) if "%y" in written else (datetime(1000, 1, 1), LAST)
    drawn = random.Random(0)
    moments = [first + drawn.random() * (last - first) for _ in range(1000)]
    moments += [first, last, EPOCH, datetime(2000, 2, 29, 12), datetime(2024, 12, 31, 23, 59, 59)]
    texts = [moment.strftime(written) for moment in moments]
    expected = [(datetime.strptime(text, written) - EPOCH) / timedelta(days=1) for text in texts]
    np.testing.assert_allclose(days(pa.array(texts), form), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("zone", ["Z", " UTC", "+00:00", "+0530", "-11:30", " +02:00"])
def test_a_time_with_a_zone_is_converted_to_utc(zone: str) -> None:
    python = zone.strip().replace("Z", "+00:00").replace("UTC", "+00:00")
    moment = datetime.strptime(f"2020-03-01T12:30{python}", "%Y-%m-%dT%H:%M%z").astimezone(timezone.utc)
    expected = (moment.replace(tzinfo=None) - EPOCH) / timedelta(days=1)
    assert read(f"2020-03-01T12:30{zone}", "year-month-day") == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    "text",
    [
        "2021-02-29",
        "2020-13-01",
        "2020-00-10",
        "2020-01-32",
        "2020-01-01 24:00",
        "2020-01-01 12:60",
        "20200101",
        "x",
        "0000-01-01",
    ],
)
def test_what_is_no_date_is_missing(text: str) -> None:
    assert all(np.isnan(read(text, form)) for form in FORMS)


def test_batches_with_and_without_gaps_are_read_alike() -> None:
    assert days(pa.array(["1/2/70"]), "day/month/short year").tolist() == [31]
    np.testing.assert_array_equal(days(pa.array([None, "1/2/70"]), "day/month/short year"), [np.nan, 31])
